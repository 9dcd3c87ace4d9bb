from edgedc.adapter import hush_peft

hush_peft()
