"""Models as files: references, single files, their headers and shapes, LoRAs, tokenizers."""
