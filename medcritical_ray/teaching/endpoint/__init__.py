"""A large model behind an OpenAI-compatible endpoint: what is asked, what it costs, and that nothing is paid twice."""
