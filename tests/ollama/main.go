// Renders prompts from the TEMPLATE of a Modelfile as Ollama does (template/template.go there, Template.Execute), with
// Go's own text/template. Reads a JSON list of {"template", "messages"} and writes a list of {"text", "error"}.
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
	"text/template/parse"
)

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type job struct {
	Template string    `json:"template"`
	Messages []message `json:"messages"`
}

type result struct {
	Text  string `json:"text"`
	Error string `json:"error"`
}

func main() {
	var jobs []job
	if err := json.NewDecoder(os.Stdin).Decode(&jobs); err != nil {
		panic(err)
	}
	results := make([]result, len(jobs))
	for k, j := range jobs {
		text, err := render(j.Template, j.Messages)
		results[k].Text = text
		if err != nil {
			results[k].Error = err.Error()
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		panic(err)
	}
}

func render(text string, messages []message) (string, error) {
	t, err := template.New("").Option("missingkey=zero").Parse(text)
	if err != nil {
		return "", err
	}
	system, joined := join(messages)
	var out strings.Builder
	if mentions(t.Tree.Root, "Messages") {
		err = t.Execute(&out, map[string]any{"System": system, "Messages": joined, "Response": ""})
		return out.String(), err
	}
	// A template for one turn: Ollama puts {{ .Response }} behind it, and renders what comes before that.
	values := map[string]any{"System": system, "Prompt": "", "Response": ""}
	for _, m := range joined {
		if m.Role == "user" {
			values["Prompt"] = m.Content
		}
	}
	err = t.Execute(&out, values)
	return out.String(), err
}

// join merges neighbours of one role, and collects what the system messages say, which stay in the list too.
func join(messages []message) (string, []message) {
	var system []string
	var joined []message
	for _, m := range messages {
		if m.Role == "system" {
			system = append(system, m.Content)
		}
		if last := len(joined) - 1; last >= 0 && joined[last].Role == m.Role {
			joined[last].Content += "\n\n" + m.Content
		} else {
			joined = append(joined, m)
		}
	}
	return strings.Join(system, "\n\n"), joined
}

func mentions(list *parse.ListNode, field string) bool {
	return strings.Contains(list.String(), "."+field)
}
