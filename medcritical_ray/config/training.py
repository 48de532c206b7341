"""Config of SFT (stage 1) and DPO (stage 2)."""

from typing import Literal, Self

from pydantic import Field, model_validator

from medcritical_ray.config.part import Part

Method = Literal["full", "lora"]


class LoraConfig(Part):
    rank: int = Field(default=32, ge=1, description="Rank of the adapter's matrices.")
    alpha: int = Field(default=64, ge=1, description="The adapter is scaled by alpha / rank.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout on the adapter's input.")
    target_modules: list[str] | None = Field(
        default=None, min_length=1, description="Modules to adapt, by name; None means all linear layers but the head."
    )


class SftConfig(Part):
    method: Method = Field(default="lora", description="Train all weights, or a LoRA adapter.")
    lora: LoraConfig = LoraConfig()
    num_epochs: int = Field(default=2, ge=1, description="Passes over the demonstrations.")
    learning_rate: float = Field(default=1e-4, gt=0, description="Peak learning rate; full weights want about 1e-5.")
    batch_size: int = Field(default=32, ge=1, description="Sequences per step over all workers.")
    max_length_tokens: int = Field(default=3072, ge=1, description="Longer examples (prompt and response) are dropped.")
    synthetic_corrections: int = Field(
        default=1, ge=0, description="Corrections of the teacher's synthetic mistakes per stage-1 question."
    )
    own_attempts: int = Field(
        default=4,
        ge=0,
        description="Attempts per stage-1 question, sampled after a first SFT, corrected by the teacher for a second; "
        "0 skips the second.",
    )
    max_own_corrections: int = Field(
        default=2, ge=0, description="Corrections of the student's own mistakes per stage-1 question, at most."
    )
    keeps_per_mistake: float = Field(
        default=1.0, ge=0, description="Right attempts kept for each mistake that is checked."
    )


class DpoConfig(Part):
    method: Method = Field(default="lora", description="Train all weights, or a LoRA adapter.")
    lora: LoraConfig = LoraConfig()
    beta: float = Field(default=0.1, gt=0, description="Strength of the pull towards the reference policy.")
    preference_weight: float = Field(
        default=1.0, ge=0, description="Weight of DPO's term; at 0, what is left is SFT on the chosen texts (RFT)."
    )
    likelihood_weight: float = Field(
        default=0.0, ge=0, description="Weight of the likelihood term on the chosen text (alpha of iterative RPO)."
    )
    reference: Literal["previous", "initial"] = Field(
        default="previous", description="The reference: the policy that the iteration starts from, or that of stage 1."
    )
    num_epochs: int = Field(default=1, ge=1, description="Passes over the pairs.")
    learning_rate: float = Field(default=5e-6, gt=0, description="Peak learning rate; full weights want about 5e-7.")
    batch_size: int = Field(default=32, ge=1, description="Pairs per step over all workers.")
    max_length_tokens: int = Field(default=3072, ge=1, description="Longer examples (prompt and text) are dropped.")
    held_out_share: float = Field(
        default=0.1, ge=0, lt=1, description="Share of the pairs held out to measure preference accuracy."
    )
    early_stop: bool = Field(default=True, description="Stop when the loss on the held-out pairs has stopped falling.")

    @model_validator(mode="after")
    def _something_is_trained(self) -> Self:
        if self.preference_weight == self.likelihood_weight == 0:
            raise ValueError("preference_weight and likelihood_weight must not both be 0")
        return self


class GuardsConfig(Part):
    """Rules that reject a new policy, beside `evaluate.accept_p_value`: its parent stays, and plays on."""

    max_chosen_logp_drop: float | None = Field(
        default=1.0,
        gt=0,
        description="Nats per token by which DPO may make the chosen held-out texts less likely; None takes any drop.",
    )
    max_finish_rate_drop: float | None = Field(
        default=0.1,
        gt=0,
        le=1,
        description="Share of the dev questions by which finished answers may become fewer; None takes any drop.",
    )
    on_rejection: Literal["go on", "stop"] = Field(
        default="go on", description="Whether the run goes on with the parent, or stops, and does so when resumed."
    )
