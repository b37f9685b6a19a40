"""The LLM clients: an OpenAI-compatible server, a local transformers model, and the extractive answerer."""
