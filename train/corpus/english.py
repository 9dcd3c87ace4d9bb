"""A little English: first names, plurals, past tenses, numbers in words."""

import re
from functools import cache

_HE = (
    "Aaron Abdul Adam Alan Albert Alex Ali Andre Andrew Andy Anthony Antonio Arthur Asher Barry Ben Bernard Bob Bobby "
    "Brad Brandon Brian Bruce Bruno Bryan Caleb Calvin Carl Carlos Charles Charlie Chen Chris Connor Craig Dan Daniel "
    "Darius Dave David Dennis Derek Diego Dmitri Donald Doug Eddie Edward Eli Emil Eric Ethan Felix Finn Francisco "
    "Fred Gabriel Gary George Gerald Gordon Greg Hakim Hans Harold Harry Hassan Hector Henry Hiro Howard Hugo Ian "
    "Isaac Ivan Jacob Jake Jamal James Jared Jason Jay Jeff Jeremy Jerome Jerry Jim Jimmy Joe Joel John Johnny Jonah "
    "Jonas Jose Joseph Josh Juan Julian Justin Karl Keith Ken Kenny Kevin Kofi Kyle Lamar Larry Leo Leon Liam Louis "
    "Lucas Luis Luke Malik Manuel Marco Marcus Mario Martin Mateo Matt Max Michael Mike Milo Mohamed Nate Nathan Ned "
    "Neil Nelson Nick Noah Oliver Omar Oscar Owen Pablo Patrick Paul Pedro Pete Peter Phil Rafael Raj Ralph Ravi "
    "Raymond Richard Rick Rob Robert Roger Ron Roy Ryan Sam Samuel Scott Sean Sergio Simon Stanley Stefan Steve "
    "Steven Stuart Tariq Ted Terrence Theo Thomas Tim Toby Todd Tom Tommy Tony Travis Trevor Tyler Victor Vincent "
    "Walter Wayne Wesley William Xavier Yusuf Zach "
)
_SHE = (
    "Abigail Ada Aisha Alexis Alice Alicia Amanda Amy Ana Andrea Angela Anita Ann Anna Anne Annie Ariana Ashley "
    "Audrey Ava Barbara Beatrice Becky Bella Beth Betty Brenda Brianna Bridget Carla Carly Carmen Carol Caroline "
    "Carrie Cassie Catherine Cathy Chloe Cindy Claire Clara Courtney Cynthia Dana Danielle Deborah Denise Diana Diane "
    "Donna Dorothy Ebony Eileen Elena Elise Eliza Elizabeth Ella Ellen Elsa Emily Emma Erica Erin Esther Eva Evelyn "
    "Fatima Fiona Freya Gabriela Gina Gloria Greta Hana Hannah Heather Heidi Helen Helga Ines Irene Isabel Isabella "
    "Jackie Jane Janet Janice Jasmine Jen Jenna Jennifer Jenny Jessica Jill Joan Joanna Joyce Judy Julia Julie Kara "
    "Karen Kate Katie Kayla Kelly Kendra Kim Kristen Lara Laura Layla Leah Leila Lena Leslie Linda Lisa Liz Lola "
    "Louise Lucy Luna Lydia Maggie Mandy Margaret Maria Marie Marissa Martha Mary Maya Megan Mei Melanie Melissa Mia "
    "Michelle Mila Miriam Molly Monica Nadia Nancy Naomi Natalie Nicole Nina Nora Olga Olivia Pam Pamela Patricia "
    "Paula Penelope Polly Priya Rachel Rebecca Rita Rosa Roxanne Ruth Sally Samantha Sandra Sara Sarah Selena Sharon "
    "Sheila Shelly Sofia Sonia Stacy Stella Stephanie Sue Susan Susie Sylvia Tamara Tanya Tara Teresa Tessa Tiffany "
    "Tina Tracy Valerie Vanessa Vera Veronica Violeta Wanda Wendy Yasmin Yuki Yvonne Zoe "
)
# Words that are names and other words too (Mark, Will, Rose, May, Jack, Austin ...) are not among them.
HE: tuple[str, ...] = tuple(_HE.split())
SHE: tuple[str, ...] = tuple(_SHE.split())

_PASTS = (
    "be:was are:were is:was has:had have:had do:did does:did go:went make:made take:took get:got give:gave buy:bought "
    "sell:sold pay:paid spend:spent find:found keep:kept lose:lost win:won eat:ate drink:drank read:read write:wrote "
    "draw:drew grow:grew catch:caught bring:brought build:built cut:cut put:put set:set run:ran ride:rode drive:drove "
    "swim:swam fly:flew throw:threw hold:held leave:left sit:sat stand:stood sleep:slept sing:sang teach:taught "
    "tell:told think:thought know:knew see:saw say:said hear:heard feel:felt fall:fell break:broke begin:began "
    "come:came become:became meet:met send:sent lend:lent hit:hit shoot:shot feed:fed hide:hid knit:knitted sew:sewed "
    "dig:dug hang:hung lay:laid let:let cost:cost weigh:weighed rise:rose wear:wore speak:spoke steal:stole "
    "choose:chose shut:shut split:split spread:spread bend:bent light:lit wake:woke swap:swapped stop:stopped "
    "drop:dropped plan:planned wrap:wrapped shop:shopped chop:chopped jog:jogged can:could skip:skipped clap:clapped "
    "trim:trimmed blow:blew could:could fit:fit lie:lay ring:rang ship:shipped "
)
_PAST = dict(pair.split(":") for pair in _PASTS.split())

_A = re.compile(r"\b([Aa]) (?=[aeiAEI]|o(?!n[ce]\b)|u(?!ni|se))")

_BELOW_21 = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_IN_WORDS = _BELOW_21.split()
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


@cache
def plural(noun: str) -> str:
    """`box` to `boxes`, `bag of rice` to `bags of rice`, `fish` to `fish`."""
    head, of, rest = noun.partition(" of ")
    if head.endswith(("fish", "sheep", "deer", "trout", "salmon")):
        many = head
    elif head.endswith(("man", "child", "mouse", "goose", "loaf", "shelf", "knife", "leaf", "calf", "scarf")):
        many = _irregular(head)
    elif re.search(r"(ch|sh|x|s|z|potato|tomato|mango|hero)$", head):
        many = f"{head}es"
    else:
        many = f"{head[:-1]}ies" if re.search(r"[^aeiou]y$", head) else f"{head}s"
    return many + of + rest


def _irregular(noun: str) -> str:
    for one, many in (("man", "men"), ("child", "children"), ("mouse", "mice"), ("goose", "geese")):
        if noun.endswith(one):
            return noun.removesuffix(one) + many
    return re.sub("fe?$", "ves", noun)


@cache
def third_person(verb: str) -> str:
    """`fix` to `fixes`; only the first word of a verb of several: `pick up` to `picks up`."""
    head, space, rest = verb.partition(" ")
    if head in ("have", "do", "go"):
        return {"have": "has", "do": "does", "go": "goes"}[head] + space + rest
    return plural(head) + space + rest


@cache
def past(verb: str) -> str:
    """Of a verb in the present, third person or not: `buys` and `buy` to `bought`."""
    head, space, rest = verb.partition(" ")
    base = next((form for form in _bases(head) if form in _PAST), None)
    if base is None:
        base = _bases(head)[-1]
        if base.endswith("e"):
            return f"{base}d{space}{rest}"
        return (f"{base[:-1]}ied" if re.search(r"[^aeiou]y$", base) else f"{base}ed") + space + rest
    return _PAST[base] + space + rest


def _bases(verb: str) -> list[str]:
    """What a verb may come from; the last one is right for a regular verb."""
    if verb.endswith("ies"):
        return [verb, f"{verb[:-3]}y"]
    if re.search(r"(ch|sh|x|ss|zz)es$", verb):
        return [verb, verb[:-2]]
    if verb.endswith("s") and not verb.endswith("ss"):
        return [verb, verb[:-2], verb[:-1]] if verb.endswith("oes") else [verb, verb[:-1]]
    return [verb]


def in_words(value: int) -> str:
    """0 to 20 and whole tens below 100 in words; digits, with commas from 1,000 on, for any other."""
    if 0 <= value <= 20:
        return _IN_WORDS[value]
    if value < 100 and value % 10 == 0:
        return _TENS[value // 10 - 2]
    return f"{value:,}"


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


def with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' and not noun.startswith(('uni', 'use', 'one', 'eu')) else 'a'} {noun}"


def right_articles(text: str) -> str:
    """`a orange` to `an orange`: where a word was put in behind an article."""
    return _A.sub(r"\1n ", text)
