"""Config of serving: what one request may ask for, and how long it may take. Where engines run is for `engines`."""

from pydantic import Field

from medcritical_ray.config.part import Part


class ServeConfig(Part):
    num_replicas: int = Field(default=1, ge=1, description="Engines that serve, each with every policy of the run.")
    max_body_bytes: int = Field(default=2**20, ge=1024, description="Bytes of a request's body, at most.")
    max_tokens: int = Field(default=4096, ge=1, description="New tokens that a request may ask for, for each text.")
    max_texts: int = Field(default=64, ge=1, description="Texts that one request may ask for: its prompts times `n`.")
    max_requests: int = Field(
        default=256, ge=1, description="Requests that one engine works on or keeps waiting; further ones are refused."
    )
    request_timeout_s: float = Field(default=120.0, gt=0, description="Seconds for one request, its waits included.")
    answer_timeout_s: float = Field(
        default=30.0,
        gt=0,
        description="Seconds in which an engine must say that it is there, whatever it works on; else it is replaced.",
    )
    stream_interval: int = Field(
        default=4,
        ge=1,
        description="Tokens in one event of a stream; each event costs a small model as much as they do.",
    )
    turn_s: float = Field(
        default=1.0,
        ge=0,
        description="Seconds that requests for other full weights wait at most before the engine takes no more for "
        "those that it has.",
    )
    poll_s: float = Field(default=2.0, gt=0, description="Seconds between two looks for a newly adopted policy.")
    stop_timeout_s: float = Field(default=20.0, gt=0, description="Seconds that requests have to end when it stops.")
