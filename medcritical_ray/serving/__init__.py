"""The policies of a run behind the OpenAI API."""
