"""What runs graphs: the vision encoder, the decoder and its KV cache, sampling."""
