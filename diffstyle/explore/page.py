"""The page itself, in Gradio: controls left and right, in between the pictures, which are HTML of our own (stage.*)."""

from __future__ import annotations

import base64
import functools
import io
import logging
import os
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.themes.utils.fonts import Font
from PIL import Image
from starlette.middleware import Middleware

from diffstyle.errors import DiffstyleError, WorkError, one_line
from diffstyle.explore.desk import Desk, Going, Made, Wish
from diffstyle.explore.guard import OwnPageOnly
from diffstyle.images import open_fitted
from diffstyle.settings import VARIANTS, Settings
from diffstyle.solvers import SOLVERS

log = logging.getLogger(__name__)
HERE = Path(__file__).parent
THUMBNAIL = 96  # pixels
SHOWN = 60  # thumbnails a side
LARGEST = 200 << 20  # bytes of a file that is dropped
STRIP = (0.0, 0.2, 0.4, 0.6, 0.8)
# The paper's, where the config advises none. abm3 takes less time than ddim with 50 steps, and is nearer to ddim with 1,000.
PAPER = Settings(gamma=0.3, n_inv=1000, n_gen=1000, solver="abm3", nfe=24)
STEPS = (50, 100, 200, 500, 1000)
CHOOSE = "Choose or drop a content and a style."
ASK = "() => window.diffstyle.ask()"

logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio asks itself whether it is up, and says so


def show(desk: Desk, contents: Sequence[Path], styles: Sequence[Path], port: int | None, open_browser: bool) -> None:
    """Serve the page until it is interrupted. Prints its address."""
    page = build(desk, contents, styles)
    url = launch(page, port)
    print(f"{url} (Ctrl-C ends it)", flush=True)
    # Without a screen Python would open a browser in the terminal, which then belongs to that.
    if open_browser and (sys.platform in ("darwin", "win32") or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()):
        webbrowser.open(url)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        log.info("the page is closed")
    finally:
        page.close(verbose=False)


def launch(page: Any, port: int | None = None) -> str:
    """Start the server, which only this machine can reach, and return its address. Raises WorkError."""
    # Fonts of the system: the theme's own would be fetched. Its remarks are too pale to be read on white.
    theme = gr.themes.Default(font=[Font("system-ui"), Font("sans-serif")], font_mono=[Font("monospace")])
    theme.set(block_info_text_color="*neutral_500", block_info_text_color_dark="*neutral_400")
    try:
        _, url, _ = page.launch(
            server_name="127.0.0.1",
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            footer_links=[],
            max_file_size=LARGEST,
            app_kwargs={"middleware": [Middleware(OwnPageOnly)]},
            theme=theme,
            head=f"<style>{text('page.css')}</style>",  # as css= Gradio would rewrite the selectors
        )
    except OSError as error:
        where = f"--explore {port}" if port else "--explore"
        raise WorkError(f"{where}: the port is taken, or none is free; give another ({error})") from error
    return url


def build(desk: Desk, contents: Sequence[Path], styles: Sequence[Path]) -> Any:
    """The page, not yet served."""
    answers = Answers(desk)
    with gr.Blocks(title="diffstyle", analytics_enabled=False) as page:
        with gr.Row():
            with gr.Column(scale=2, min_width=260):
                sides = [Side(answers, *given) for given in (("content", contents), ("style", styles))]
                inputs: dict[str, Any] = {side.name: answers.picture(side.chosen.value) for side in sides}
            with gr.Column(scale=4, min_width=320):
                stage = gr.HTML(
                    html_template=text("stage.html"),
                    js_on_load=text("stage.js"),
                    apply_default_css=False,
                    elem_id="stage",
                    map=list(desk.map_size),
                    **inputs,
                    result="",
                    file="",
                    share=1,
                    note="",
                )
                command = gr.Textbox(
                    label="The command line that makes this picture", lines=3, interactive=False, elem_id="command"
                )
                copy = gr.Button("Copy the command line")
            with gr.Column(scale=2, min_width=260):
                controls = make_controls(answers.start)
                five = gr.Button("Gamma strip of five")
        strip = gr.Gallery(
            label="gamma strip: choose one to take its gamma", columns=5, fit_columns=False, visible=False, allow_preview=False,
            buttons=[], format="png", elem_id="strip",
        )  # fmt: skip
        mask = gr.State("")

        wish = [*(side.chosen for side in sides), mask, *controls.values()]
        # A newer event must reach the desk while an older one is at work, to supersede it.
        at_once: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None, "trigger_mode": "multiple"}
        ask: dict[str, Any] = {"fn": answers.ask, "inputs": wish, "outputs": [stage, command], **at_once}
        page.load(**ask)
        stage.ask(**ask)
        for control in controls.values():
            control.change(None, js=ASK)
        controls["variant"].input(
            quiet(lambda variant: Settings.of(variant=variant).omega), controls["variant"], controls["omega"]
        )
        controls["solver"].input(quiet(answers.steps), controls["solver"], controls["steps"])
        for side in sides:
            side.gallery.select(quiet(side.choose), side.paths, [side.chosen, stage], show_progress="hidden").then(**ask)
        given = [each for side in sides for each in (side.paths, side.gallery, side.chosen)]
        taken = gr.State(0)  # files dropped so far; a picture is asked for only after one could be read, else it hid the error
        paths = [side.paths for side in sides]
        stage.drop(quiet(answers.drop(sides)), [*paths, taken], [*given, stage, taken], show_progress="hidden")
        taken.change(**ask)
        stage.paint(quiet(answers.paint), None, mask).then(**ask)
        five.click(answers.strip, wish, [stage, strip], **at_once)
        strip.select(quiet(answers.gamma), None, controls["gamma"])
        copy.click(None, command, None, js="(text) => window.diffstyle.copy(text)")
    return page


def papers(timesteps: int) -> Settings:
    """The paper's settings for a model of so many timesteps, in proportion where they are not its 1,000."""
    steps = min(PAPER.n_gen, timesteps)
    t_edit = PAPER.t_edit * timesteps // 1000
    return replace(PAPER, t_0=timesteps - 1, t_edit=t_edit, n_inv=steps, n_gen=steps, nfe=min(PAPER.nfe, timesteps))


def steps_of(start: Settings) -> list[int]:
    """The numbers of steps to choose from, those that there are timesteps for."""
    return sorted({start.n_gen, *(n for n in STEPS if n <= start.t_0 + 1)})


def make_controls(start: Settings) -> dict[str, Any]:
    """The controls, under the names that ``settings_of`` knows."""
    most = start.t_0 // 10 * 10 + 10  # no content enters
    controls: dict[str, Any] = {
        "gamma": gr.Slider(0, 1, start.gamma, step=0.05, label="gamma", info="share of the content"),
        "omega": gr.Slider(0, 2, start.omega, step=0.05, label="omega", info="style calibration; 0 is off"),
        "t_edit": gr.Slider(0, most, start.t_edit, step=10, label="t_edit", info="content enters at t >= t_edit"),
        "t_boost": gr.Slider(0, most // 20 * 10, start.t_boost, step=10, label="t_boost", info="noise is added at t <= t_boost"),
        "variant": gr.Radio(list(VARIANTS), value=start.variant, label="variant", info="the published code, or the paper's text"),
    }
    with gr.Accordion("Solver and steps", open=False):
        controls |= {
            "solver": gr.Dropdown(list(SOLVERS), value=start.solver, label="solver", info="ddim evaluates every step"),
            "nfe": gr.Slider(4, 80, start.nfe, step=4, label="nfe", info="evaluations a walk of the others, injections apart"),
            "steps": gr.Dropdown(steps_of(start), value=start.n_gen, label="steps", info="of inversion and generation"),
            "seed": gr.Number(start.seed, precision=0, minimum=0, label="seed", info="of the noise below t_boost"),
        }
    for control in controls.values():
        control.preprocess = as_given  # Gradio would refuse what lies beside the slider, with a traceback in the terminal
    return controls


def as_given(value: Any) -> Any:
    """What the browser says of a control; ``Answers.wish`` judges it."""
    return value


def settings_of(
    start: Settings,
    mask: str,
    gamma: float,
    omega: float,
    t_edit: float,
    t_boost: float,
    variant: str,
    solver: str,
    nfe: float,
    steps: int,
    seed: int | None,
) -> Settings:
    """The settings that the controls show; numbers of the types that the command line reads, which the record tells apart."""
    return replace(
        start,
        gamma=float(gamma),
        omega=float(omega),
        t_edit=int(t_edit),
        t_boost=int(t_boost),
        mask=mask,
        variant=variant,
        solver=solver,
        nfe=int(nfe),
        n_inv=int(steps),
        n_gen=int(steps),
        seed=int(seed or 0),
    )


class Answers:
    """What the server says to the page's events."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.size = desk.model.config.image_size
        advised = desk.model.config.settings
        timesteps = desk.model.config.timesteps
        self.start = Settings.of(**advised) if advised else papers(timesteps)
        self.start.check(timesteps)

    def ask(self, content: str, style: str, mask: str, *values: Any) -> Iterator[Any]:
        """The states of the picture that the controls ask for, with the last one the command that makes it."""
        ticket = self.desk.ticket()
        try:
            wish = self.wish(content, style, mask, *values)
            for state in self.desk.make(wish, ticket):
                if isinstance(state, Made):
                    note = f"{wish.settings.solver}, {state.evaluations} network evaluations, {state.seconds:.1f} s"
                    note = "; ".join([note, *state.doubts])
                    yield gr.HTML(result=url(state.png), file=state.name, share=1, note=note), self.desk.given.command(wish)
                else:
                    yield going(state), gr.skip() if state.image is None else ""  # until it is there again
        except DiffstyleError as error:
            yield wrong(error), gr.skip()

    def strip(self, content: str, style: str, mask: str, *values: Any) -> Iterator[Any]:
        """The picture at five gammas, each as soon as it is there."""
        ticket = self.desk.ticket()
        row: list[tuple[Image.Image, str]] = []
        try:
            wish = self.wish(content, style, mask, *values)
            for gamma in STRIP:
                for state in self.desk.make(replace(wish, settings=replace(wish.settings, gamma=gamma)), ticket):
                    if isinstance(state, Made):
                        row.append((Image.open(io.BytesIO(state.png)), f"gamma {gamma:g}"))
                        note = f"gamma strip: {len(row)} of {len(STRIP)}"
                        yield gr.HTML(share=len(row) / len(STRIP), note=note), gr.Gallery(row, visible=True)
        except DiffstyleError as error:
            yield wrong(error), gr.skip()

    def wish(self, content: str, style: str, mask: str, *values: Any) -> Wish:
        if not content or not style:
            raise WorkError(CHOOSE)
        try:
            return Wish(Path(content), Path(style), settings_of(self.start, mask, *values))
        except (TypeError, ValueError, OverflowError):
            raise WorkError("one of the controls holds no number") from None

    def picture(self, path: str) -> str:
        """An input as the network sees it."""
        return url(png(open_fitted(Path(path), self.size))) if path else ""

    def paint(self, event: gr.EventData) -> str:
        return self.desk.keep_mask(event.cells)

    def drop(self, sides: Sequence[Side]) -> Callable[..., Any]:
        """An answer to a file of one's own: it goes to its side, the other stays."""

        def answer(contents: list[str], styles: list[str], taken: int, event: gr.EventData) -> list[Any]:
            stay = [gr.skip()] * 3
            try:
                file = Path(event.path).resolve()
                if not file.is_relative_to(Path(os.environ["GRADIO_TEMP_DIR"]).resolve()):  # the browser says where it is
                    raise WorkError("that is no file dropped on this page")
                if event.side == sides[0].name:
                    changed, seen = sides[0].take(file, contents)
                    return [*changed, *stay, seen, taken + 1]
                changed, seen = sides[1].take(file, styles)
                return [*stay, *changed, seen, taken + 1]
            except DiffstyleError as error:
                return [*stay, *stay, wrong(error), gr.skip()]

        return answer

    def gamma(self, event: gr.SelectData) -> float:
        return STRIP[event.index]

    def steps(self, solver: str) -> int:
        """What is quick: ddim evaluates every step, the others only nfe of them."""
        return steps_of(self.start)[0 if solver == "ddim" else -1]


class Side:
    """The thumbnails from which the content, or the style, is chosen; what is dropped joins them."""

    def __init__(self, answers: Answers, name: str, paths: Sequence[Path]) -> None:
        self.answers, self.name = answers, name
        self.thumbnails: dict[str, Image.Image] = {}
        shown = [str(path) for path in paths if len(self.thumbnails) < SHOWN and self.readable(path)]
        label = name if len(shown) == len(paths) else f"{name}: {len(shown)} of {len(paths)}"
        self.paths = gr.State(shown)
        self.chosen = gr.State(shown[0] if shown else "")
        self.gallery = gr.Gallery(
            self.rows(shown),
            label=label,
            height=220,
            allow_preview=False,
            buttons=[],
            format="png",
            elem_id=f"{name}s",
            elem_classes="choice",
            selected_index=0 if shown else None,
        )

    def choose(self, paths: list[str], event: gr.SelectData) -> Any:
        path = paths[event.index]
        return path, self.seen(path)

    def take(self, file: Path, paths: list[str]) -> Any:
        """New paths, gallery, the path chosen and the stage's picture, after ``file`` was dropped. Raises DiffstyleError."""
        open_fitted(file, THUMBNAIL)
        path = str(self.answers.desk.keep(file))
        paths = [path, *(other for other in paths if other != path)]
        gallery = gr.Gallery(self.rows(paths), selected_index=0)
        return [paths, gallery, path], self.seen(path)

    def seen(self, path: str) -> Any:
        """The stage's picture of this side."""
        changed: dict[str, Any] = {self.name: self.answers.picture(path)}
        return gr.HTML(**changed)

    def rows(self, paths: Sequence[str]) -> list[tuple[Image.Image, str]]:
        return [(self.thumbnail(path), Path(path).stem) for path in paths]

    def thumbnail(self, path: str) -> Image.Image:
        if path not in self.thumbnails:
            self.thumbnails[path] = open_fitted(Path(path), THUMBNAIL)
        return self.thumbnails[path]

    def readable(self, path: Path) -> bool:
        try:
            self.thumbnail(str(path))
            return True
        except WorkError as error:
            log.warning("%s", error)
            return False


def quiet(answer: Callable[..., Any]) -> Callable[..., Any]:
    """``answer``, whose errors are shown on the page and not in the terminal, where Gradio prints a traceback of each.

    What it is asked comes from the browser and may be anything.
    """

    @functools.wraps(answer)
    def quietly(*words: Any) -> Any:
        try:
            return answer(*words)
        except (DiffstyleError, ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
            raise gr.Error(one_line(error)[:200], print_exception=False) from None

    return quietly


# ---- what the stage is told ----------------------------------------------------------------------------------------


def going(state: Going) -> Any:
    note = f"{state.done} of {state.total} network evaluations"
    seen: dict[str, Any] = {} if state.image is None else {"result": url(png(state.image)), "file": ""}
    return gr.HTML(share=min(0.99, state.done / max(1, state.total)), note=note, **seen)


def wrong(error: DiffstyleError) -> Any:
    return gr.HTML(share=1, note=str(error))


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
