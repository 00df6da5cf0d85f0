"""What to do with a checkpoint: the method's settings in the paper's symbols, checked once, recorded with every result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffstyle.errors import UsageError
from diffstyle.steps import USUAL, Grid, Step, event_timesteps, inversion_steps, kept_timesteps, thin_out, transfer_steps

VARIANTS = ("official", "paper")
NOISES = ("pair", "official", "golden")


@dataclass(frozen=True)
class Settings:
    """Everything besides model and images that a pair's picture depends on. Defaults are the official code's."""

    gamma: float = 0.9  # share of the content's h, 0 to 1
    omega: float = 0.0  # style calibration, 0 is off
    t_edit: int = 400  # inject at t >= t_edit
    t_boost: int = 0  # add noise at t <= t_boost
    dt_lambda: float = 1.0  # factor on D_t at injections with t >= dt_end
    dt_end: int = 950
    n_inv: int = 40  # timesteps of the inversion
    n_gen: int = 1000  # timesteps of the generation
    content_replace_step: int = 50  # number of timesteps at which h is looked at; 0 or -1: every step
    t_0: int = 999  # the noisiest timestep
    variant: str = "official"
    blend: str = "slerp"  # how h and the content's h are combined: hspace.mix
    mask: str = ""  # "": everywhere, "box": the official box, else a rectangle or a file (diffstyle.masks)
    noise: str = "pair"  # each pair's own, or one stream: of a real official run, or of the golden arrays (diffstyle.noise)
    seed: int = 1234
    solver: str = "ddim"  # the official walk, or another of diffstyle.solvers: nearly the same for fewer evaluations
    nfe: int = 40  # the other solvers' evaluations from t_0 to the clean image, those at injections apart

    @classmethod
    def of(cls, **given: Any) -> Settings:
        """Settings from what was said: a variant brings its own omega unless one is given (the paper's is 0.3)."""
        if given.get("omega") is None:
            given["omega"] = 0.3 if given.get("variant") == "paper" else 0.0
        return cls(**given)

    def check(self, timesteps: int = 1000) -> None:
        """Raise UsageError for a value that cannot be meant, in the words of the command line."""
        # Imported here because they bring torch, which the command's --help and wrong flags need not wait for.
        from diffstyle.hspace import BLENDS
        from diffstyle.solvers import SOLVERS

        for flag, number in (("--gamma", self.gamma), ("--omega", self.omega), ("--dt_lambda", self.dt_lambda)):
            if not abs(number) < 3.4e38:  # the largest number of the tensors; of nan it says no, too
                raise UsageError(f"{flag} {number} is out of range: use a finite number")
        limits = [
            ("--t_0", self.t_0, 1, timesteps - 1),
            ("--n_inv_step", self.n_inv, 2, self.t_0 + 1),  # one timestep leaves no h
            ("--n_gen_step", self.n_gen, 2, self.t_0 + 1),
            ("--nfe", self.nfe, 1, timesteps),
            ("--seed", self.seed, 0, 2**63 - 1),
        ]
        for flag, value, low, high in limits:
            if not low <= value <= high:
                raise UsageError(f"{flag} {value} is out of range: use {low} to {high}")
        if self.content_replace_step < -1:
            raise UsageError(f"--content_replace_step {self.content_replace_step} is out of range: use 1 or more, or 0 for all")
        for flag, word, known in (
            ("--variant", self.variant, VARIANTS),
            ("--noise", self.noise, NOISES),
            ("--blend", self.blend, BLENDS),
            ("--solver", self.solver, tuple(SOLVERS)),
        ):
            if word not in known:
                raise UsageError(f"{flag} {word} is not known: use {' or '.join(known)}")

    def doubts(self, timesteps: int = 1000) -> list[str]:
        """Warnings about values that are computed, as the official code does, but lie outside of what the paper uses."""
        ranges: list[tuple[str, float, int]] = [
            ("--gamma", self.gamma, 1),
            ("--omega", self.omega, 10),
            ("--dt_lambda", self.dt_lambda, 2),
            ("--t_edit", self.t_edit, timesteps),
            ("--t_boost", self.t_boost, timesteps - 1),
            ("--dt_end", self.dt_end, timesteps),
        ]
        found = [
            f"{flag} {value} is computed, but lies outside of the method's range of 0 to {high}"
            for flag, value, high in ranges
            if not 0 <= value <= high
        ]
        if self.t_edit > event_timesteps(self.n_gen, self.content_replace_step, self.t_0)[-1]:
            found.append(f"no content is injected at t >= {self.t_edit}: the results are the styles, reconstructed")
        return found

    def inversion_plan(self) -> list[Step]:
        return inversion_steps(self.n_inv, self.t_0)

    def kept(self) -> list[int]:
        """The inversion timesteps whose h is stored: whatever gamma, omega, t_edit and t_boost will be, and at every n_gen."""
        return kept_timesteps(event_timesteps(self.n_gen, self.content_replace_step, self.t_0), self.n_inv, self.t_0)

    def transfer_plan(self) -> list[Step]:
        return transfer_steps(
            n_gen=self.n_gen,
            t_edit=self.t_edit,
            t_boost=self.t_boost,
            omega=self.omega,
            dt_lambda=self.dt_lambda,
            dt_end=self.dt_end,
            content_replace_step=self.content_replace_step,
            t_0=self.t_0,
            boost_every_step=self.variant == "paper",
            kept=self.kept(),
        )

    def inversion_walk(self, grid: Grid = USUAL) -> list[Step]:
        """The plan, with the evaluations that the solver asks for; ``grid`` is the model's (ModelConfig.grid)."""
        return self.inversion_plan() if self.solver == "ddim" else thin_out(self.inversion_plan(), self.nfe, grid)

    def transfer_walk(self, grid: Grid = USUAL) -> list[Step]:
        return self.transfer_plan() if self.solver == "ddim" else thin_out(self.transfer_plan(), self.nfe, grid)

    def inversion_evaluations(self, latent: bool = True, grid: Grid = USUAL) -> int:
        """Network evaluations of one inversion; without ``latent`` it ends at the last h kept, which takes no decode."""
        last = self.kept()[-1]
        return sum(latent or step.t < last for step in self.inversion_walk(grid))

    def transfer_evaluations(self, grid: Grid = USUAL) -> int:
        """Network evaluations of one transfer; an injection is one, with its second decode."""
        return sum(step.evaluations for step in self.transfer_walk(grid))
