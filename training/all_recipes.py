"""The recipes of a folder, each with the state of its training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from perceptual.errors import InvalidOption
from perceptual.settings import parse

from .loop import Run
from .settings import StyleSettings, SuperResolutionSettings, TrainingSettings, read_recipe
from .style import train_style
from .super_resolution import train_super_resolution

RECIPES = Path(__file__).with_name("recipes")


@dataclass(frozen=True)
class Recipe:
    """A recipe for one network.

    Attributes:
        run: The files of its training; named after the recipe's file.
        settings: The class of its settings.
        function: Trains with these settings.
        values: Settings by option name: the recipe's, overridden by the command line's.
    """

    run: Run
    settings: type[TrainingSettings]
    function: Callable[..., Path | None]
    values: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the network."""
        return self.run.name

    @property
    def initial(self) -> str:
        """Name of the network that it begins with, or an empty text."""
        return Path(self.values.get("initial-weights", "")).stem

    @property
    def missing_painting(self) -> Path | None:
        """The path of the painting, if there is no such file."""
        painting = self.values.get("style-image")
        return None if painting is None or Path(painting).exists() else Path(painting)

    def is_finished(self) -> bool:
        """Whether the weights exist and, if there is a checkpoint too, have all iterations of the recipe.

        Raises:
            WeightsError: The weights cannot be read.
            InvalidOption: A setting is wrong.
        """
        if not (self.run.model.exists() and self.run.begun):
            return self.run.model.exists()
        return self.run.has_done(parse(self.settings, self.values).iterations)

    def train(self, minutes: float | None) -> Path | None:
        """Begins or continues the training. Returns the weights, or None if it was stopped early."""
        run = self.run
        initial = run.model.with_name(f"{self.initial}.safetensors")
        own: dict[str, Any] = {"name": run.name, "model-path": run.model, "sample-path": run.folder}
        if initial != run.model and initial.is_file():  # a network that was just trained replaces the one that ships
            own["initial-weights"] = initial
        if minutes is not None:
            own["minutes"] = minutes
        return self.function(parse(self.settings, {**self.values, **own}), resume=run.begun)


TASKS: dict[str, tuple[type[TrainingSettings], Callable[..., Path | None]]] = {
    "style-image": (StyleSettings, train_style),
    "upscale-factor": (SuperResolutionSettings, train_super_resolution),
}


def find_recipes(folder: Path, models: Path, runs: Path, values: Mapping[str, Any]) -> list[Recipe]:
    """Recipes with a painting or an upscaling factor; each comes after the one whose network it begins with.

    Args:
        folder: Folder of the recipes.
        models: Folder for the weights.
        runs: Folder for the runs.
        values: Settings by option name that apply to every recipe.

    Raises:
        InvalidOption: There is no such folder, or a recipe in it is not TOML.
    """
    if not folder.is_dir():
        raise InvalidOption(f"recipes: there is no folder {folder}")
    found: dict[str, Recipe] = {}
    for file in sorted(folder.glob("*.toml")):
        recipe, name = read_recipe(file), file.stem
        for key, task in TASKS.items():
            if key in recipe:
                run = Run(name, runs / name, models / f"{name}.safetensors")
                found[name] = Recipe(run, *task, {**recipe, **values})
                break
    begins_with = [(name, {recipe.initial} & found.keys() - {name}) for name, recipe in found.items()]
    try:
        # The first to be added come first.
        order = TopologicalSorter(dict(sorted(begins_with, key=lambda each: bool(each[1])))).static_order()
        return [found[name] for name in order]
    except CycleError as error:
        raise InvalidOption(f"recipes: each begins with the other's network: {', '.join(error.args[1])}") from error
