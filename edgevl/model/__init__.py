"""What a model folder says about itself: manifest, family, tokenizer, prompt."""
