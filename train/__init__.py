from edgedc.adapter import hush_bitsandbytes

hush_bitsandbytes()
