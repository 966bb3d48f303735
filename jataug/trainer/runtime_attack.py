"""ONNX Runtime on the current weights: the artifact's inputs are the torch module's own tensors."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from ..artifact import load_artifact, prune
from ..attack.joint import start
from ..attack.problem import Problem, read
from ..attack.projection import Branch
from ..attack.render import State, render
from ..config import AttackConfig
from ..errors import ModelError
from ..runtime.on_device.shared import run_shared, settle
from ..runtime.on_device.tensor_calls import INPUT
from ..runtime.onnxruntime import Engine

__all__ = ["LiveAttack"]


class LiveAttack:
    """The attack on a torch module as a graph that reads the module's weights where they are.

    The graph is made once, of the network's structure alone; its weights are inputs, bound through
    DLPack without a copy, so that it always sees the present ones. Starts, targets and images are
    those of JointAttack, but for rounding.

    Args:
        model: images in [0, 1] to logits; its parameters keep their memory, as optimizers leave
            them.
        config: the attack; with keep="last", as a training attack has it.
        shape: (channel, height, width) of the images.
        device: where the module is.
        threads: of the runtime's pool; default torch's.

    Raises:
        ModelError: the module cannot be exported, or holds weights that are not contiguous.
    """

    def __init__(
        self,
        model: nn.Module,
        config: AttackConfig,
        shape: tuple[int, int, int],
        device: torch.device,
        threads: int | None = None,
    ) -> None:
        from ..export import export_attack

        if config.keep != "last":
            raise ModelError("attack on live weights: expected keep='last', got keep='best'")
        self._model, self._config, self._device = model, config, device
        self._threads = threads or torch.get_num_threads()
        example = torch.zeros(2, *shape, device=device)
        with TemporaryDirectory(prefix="jataug-") as folder:
            path = Path(folder) / "attack.onnx"
            where = str(device)
            export_attack(model, config, path, example=example, weights="input", device=where)
            artifact, self._manifest = load_artifact(path)
        self._graph = prune(artifact, [f"next_{INPUT[b]}" for b in config.branches])
        self._engines: dict[int, Engine] = {}

    def __call__(
        self, images: Tensor, labels: Tensor, indices: list[int], *, seed: int, epoch: int
    ) -> Tensor:
        """Return adversarial images: as `images`.

        Args:
            images: (batch, channel, height, width), float32 in [0, 1], on the module's device.
            labels: (batch,), int64.
            indices: (batch,), the samples' indices, which name the random streams.
            seed: with `epoch`, what else names them.
            epoch: see `seed`.
        """
        training = self._model.training
        self._model.eval()
        try:
            with torch.no_grad():
                none: dict[Branch, None] = {"flow": None, "pixel": None}
                problem = read(
                    self._model, self._config, images, labels, indices, None, none,
                    seed=seed, epoch=epoch,
                )  # fmt: skip
                return self._attack(problem)
        finally:
            self._model.train(training)

    def _attack(self, problem: Problem) -> Tensor:
        state = start(problem)
        for iteration in range(self._config.steps):
            state = self._iterate(problem.for_iteration(iteration), state)
        return render(problem.image, state, self._config.composition)

    def _iterate(self, problem: Problem, state: State) -> State:
        engine = self._engine(len(problem.image))
        feeds = {"image": problem.image, "label": problem.label, "target": problem.target}
        for branch in self._config.branches:
            feeds[INPUT[branch]] = state[branch]
            feeds[f"{branch}_radius"] = problem.radius[branch]
            feeds[f"{branch}_step"] = problem.step[branch]
        feeds |= self._weights()
        following: State = {b: torch.empty_like(state[b]) for b in self._config.branches}
        known = {name: feeds[name].detach().contiguous() for name in engine.inputs}
        results = {f"next_{INPUT[b]}": following[b] for b in self._config.branches}
        settle(self._device)
        run_shared(engine, known, results, number=self._device.index or 0)
        return following

    def _weights(self) -> dict[str, Tensor]:
        state = self._model.state_dict()
        named = {f"weights/{name}": value for name, value in state.items()}
        if scattered := [n for n in self._manifest.weights if not named[n].is_contiguous()]:
            raise ModelError(
                f"attack on live weights: expected contiguous weights, got {scattered[0]!r} in "
                "another memory format; leave channels_last out"
            )
        return named

    def _engine(self, size: int) -> Engine:
        if size not in self._engines:
            sizes = {"N": size, "R": size}
            self._engines[size] = Engine(self._graph, sizes, str(self._device), self._threads)
        return self._engines[size]
