"""Schemas of the configuration: what a key may hold, checked before anything else happens.

The values themselves stand in `conf/*.yaml`; the schemas have no defaults, so that there is one place to look a
default up. A key that is added in a later version gets its former behaviour as a default here: then old run ids keep
their meaning, see `run_id`.
"""

from __future__ import annotations

import hashlib
import json
import math
import pkgutil
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from overfit_lab.errors import UserError

Problem = Literal["binary", "multiclass", "multilabel", "regression", "unit_regression"]
LossName = Literal["binary_cross_entropy", "categorical_cross_entropy", "mean_squared_error"]
Activation = Literal["relu", "tanh", "sigmoid", "gelu", "elu", "leaky_relu", "silu", "quadratic"]


def _in_open_interval(value: float) -> float:
    if not 0 < value < 1:
        raise ValueError("must be above 0 and below 1")
    return value


def _in_half_open_interval(value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError("must be at least 0 and below 1")
    return value


def _of_a_known_user(path: str) -> str:
    try:
        Path(path).expanduser()
    except RuntimeError as error:
        user = Path(path).parts[0]
        message = f"there is no user whose folder {user} could be; for a file of that name allowed is its whole path"
        raise ValueError(message) from error
    return path


Fraction = Annotated[float, AfterValidator(_in_open_interval)]
Rate = Annotated[float, AfterValidator(_in_half_open_interval)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
UserPath = Annotated[str, Field(min_length=1), AfterValidator(_of_a_known_user)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Section(BaseModel):
    """A part of the configuration: unknown keys, other types and values out of range are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


class Targeted(Section):
    """A section that may name a Python object to call, with every further key as one of its arguments."""

    model_config = ConfigDict(extra="allow")

    target: str | None = Field(alias="_target_")

    @model_validator(mode="after")
    def _plain(self) -> Self:
        for key, value in self.arguments.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"{key}={value}: must be a finite number")
        return self

    @property
    def arguments(self) -> dict[str, Any]:
        """The keys that the schema does not know: arguments of the target."""
        return dict(self.model_extra or {})


class _Data(Section):
    """What may be said of data, wherever they come from."""

    name: str = Field(min_length=1)
    # `auto` scales what has no scale of its own: tables, not images, texts and tokens.
    scale_inputs: Literal["auto"] | bool
    scale_targets: bool
    # The share of the labels of development rows that are made wrong.
    label_noise: Rate = 0.0
    # How many of its train rows a fit trains on: a count, or a share of them; all where it is null.
    train_size: Count | Fraction | None = None


class BundledData(_Data):
    """A data set that comes with the package, by its name."""


class CustomData(_Data, Targeted):
    """The user's own data: a function by its dotted path that returns a Source."""


class _Columns(_Data):
    """Data that have columns with names."""

    path: UserPath
    # Where the input is a column of texts: so many of its most frequent words.
    words: Count = 10_000
    # Columns: what is predicted, from what, and what says which rows belong together. Where it is null, the target is
    # inferred and all others are inputs.
    target: str | list[str] | None = None
    inputs: list[str] | None = None
    group: str | list[str] | None = None

    @property
    def targets(self) -> list[str]:
        """The columns of the target; none where they are to be inferred."""
        return _listed(self.target)

    @property
    def groups(self) -> list[str]:
        """The columns that say which rows belong together."""
        return _listed(self.group)


def _listed(names: str | list[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else names or []


class FileData(_Columns):
    """A table, arrays or images in a file of the user's."""

    kind: Literal["file"]


class HubData(_Columns):
    """A data set of the hub of the library `datasets`, or a folder of the same layout."""

    kind: Literal["hub"]
    # One of several that a data set is made of.
    subset: str | None = None
    # Without it nothing is fetched from elsewhere.
    download: bool = False
    # What was published to test on is validated on instead, as books do. Then there is no final test.
    validate_on_test: bool = False


class _Splitting(Section):
    # Zero is allowed: then there is no test set, and no final test either.
    test_fraction: Rate
    repeats: Count
    seed: Seed
    stratify: Literal["auto"] | bool
    # A column of the source's `groups`; no group is ever on two sides of a cut.
    group: str | None = None
    # Nested cross-validation: the test rows are fold number `outer`, from 0, of so many.
    outer_folds: Annotated[int, Field(ge=2)] | None = None
    outer: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _nested(self) -> Self:
        if self.outer_folds is None:
            if self.outer is not None:
                raise UserError(f"split.outer={self.outer}: without split.outer_folds allowed is null")
            return self
        if self.outer is None or self.outer >= self.outer_folds:
            value = "null" if self.outer is None else self.outer
            raise UserError(
                f"split.outer={value}: with split.outer_folds={self.outer_folds} allowed is 0 to {self.outer_folds - 1}"
            )
        if self.test_fraction:
            raise UserError(
                f"split.test_fraction={self.test_fraction:g}: with split.outer the test rows are an outer fold; "
                "allowed is 0"
            )
        return self


class HoldoutSplit(_Splitting):
    """One validation set: val_fraction of the development rows, or the source's official rows."""

    kind: Literal["holdout"]
    # Null: the rows that the source brings to validate on.
    val_fraction: Fraction | None


class KFoldSplit(_Splitting):
    """Every development row is a validation row of exactly one of the folds."""

    kind: Literal["kfold"]
    folds: int = Field(ge=2)


class MLPModel(Section):
    """Hidden layers of one width."""

    target: Literal["overfit_lab.model.MLP"] = Field(alias="_target_")
    width: Count
    depth: Count
    activation: Activation
    dropout: Rate


class LinearModel(Section):
    """No hidden layer."""

    target: Literal["overfit_lab.model.Linear"] = Field(alias="_target_")
    bias: bool = True
    # Small random weights, as torch's layers have them, or 0, from where theory has gradient descent start.
    initial: Literal["random", "zero"] = "random"


class CNNModel(Section):
    """Blocks of convolution and pooling, for rows that have a shape."""

    target: Literal["overfit_lab.model.CNN"] = Field(alias="_target_")
    channels: Count
    depth: Count
    kernel: Count
    activation: Activation
    dropout: Rate

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError("must be odd, so that a border of zeros keeps the sides as they are")
        return kernel


class ResNetModel(Section):
    """A residual network of one width, for rows that have a shape."""

    target: Literal["overfit_lab.model.ResNet"] = Field(alias="_target_")
    width: Count
    stages: Count
    blocks: Count


class TransformerModel(Section):
    """A transformer encoder, for token numbers and for rows as sequences."""

    target: Literal["overfit_lab.model.Transformer"] = Field(alias="_target_")
    embedding: Count
    depth: Count
    heads: Count
    patch: Count
    dropout: Rate

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.embedding % self.heads:
            raise UserError(f"model.heads={self.heads}: must divide model.embedding={self.embedding}")
        return self


class RandomFeaturesModel(Section):
    """Fixed random features and a last layer that is trained."""

    target: Literal["overfit_lab.model.RandomFeatures"] = Field(alias="_target_")
    features: Count


class CustomModel(Targeted):
    """The user's own network: a class by its dotted path."""

    target: str = Field(alias="_target_")


class TaskConfig(Section):
    """The problem type; `auto` takes what the source says."""

    name: Literal["auto", Problem]
    loss: Literal["auto", LossName]
    metrics: Literal["auto"] | list[str]


class NoPenalty(Section):
    """The loss alone."""

    kind: Literal["none"]


class _Penalty(Section):
    alpha: NonNegative
    # Patterns over parameter names, as in fnmatch. They win over the module types.
    include: list[str]
    exclude: list[str]


class L2Penalty(_Penalty):
    """The penalty alpha / 2 * ||w||^2."""

    kind: Literal["l2"]


class L1Penalty(_Penalty):
    """The penalty alpha * ||w||_1."""

    kind: Literal["l1"]


class ElasticNetPenalty(_Penalty):
    """The penalty alpha * (l1_ratio * ||w||_1 + (1 - l1_ratio) / 2 * ||w||^2)."""

    kind: Literal["elastic_net"]
    l1_ratio: float = Field(ge=0, le=1)


class _Optimizer(Section):
    lr: Positive


class SGD(_Optimizer):
    """Plain stochastic gradient descent."""

    kind: Literal["sgd"]


class Momentum(_Optimizer):
    """Stochastic gradient descent with momentum."""

    kind: Literal["momentum"]
    momentum: Rate
    nesterov: bool


class Adam(_Optimizer):
    """Adam; a penalty enters through the gradient (coupled)."""

    kind: Literal["adam"]
    beta1: Rate
    beta2: Rate
    eps: Positive


class AdamW(_Optimizer):
    """Adam with decoupled decay: weights shrink by lr * decoupled_decay a step, beside any penalty."""

    kind: Literal["adamw"]
    beta1: Rate
    beta2: Rate
    eps: Positive
    decoupled_decay: NonNegative


class RMSprop(_Optimizer):
    """RMSprop; `smoothing` is the decay of the squared gradient's average."""

    kind: Literal["rmsprop"]
    smoothing: Rate
    eps: Positive


class CustomOptimizer(Targeted):
    """The user's own optimizer: a torch.optim.Optimizer by its dotted path."""

    kind: Literal["custom"]
    target: str = Field(alias="_target_")
    # None where it takes none, or is to use its own.
    lr: Positive | None


class TrainingConfig(Section):
    """Length of a fit and what is measured on the way."""

    epochs: Count
    batch_size: Count
    # Train rows beyond this number are measured on a fixed subset, as large as the validation set.
    max_train_rows_measured: Count
    # Seconds between checkpoints, at least: they take 1.8 % of the time at most. It does not touch the result.
    checkpoint_seconds: NonNegative
    # Curves have a point at epoch 0, at each multiple of this, and at the last epoch.
    eval_every: Count = 1


SEVERAL_DEVICES = ("devices", "strategy", "num_nodes")
"""Keys of Lightning's Trainer that people look for."""
ONE_DEVICE = (
    "a run trains on one device in one process; several devices train a sweep, with hydra/launcher=cohort (the GPUs of "
    "this machine) or hydra/launcher=cohort_slurm (a cluster)"
)


class TrainerConfig(Section):
    """What Lightning's Trainer is told; always one device for one process."""

    # Curves are summed in double precision, which Apple's mps does not have.
    accelerator: Literal["auto", "cpu", "cuda"]
    precision: Literal["32-true", "64-true", "bf16-mixed"]

    @model_validator(mode="before")
    @classmethod
    def _one_device(cls, values: Any) -> Any:  # noqa: ANN401 - whatever stands there
        for key in SEVERAL_DEVICES:
            if isinstance(values, Mapping) and key in values:
                raise UserError(f"trainer.{key}={values[key]}: {ONE_DEVICE}")
        return values


class LoggerConfig(Targeted):
    """A logger of Lightning's beside the event files, by its dotted path; none where there is no path."""

    target: str | None = Field(alias="_target_")


class StudyConfig(Section):
    """Where the study lies, and whether its report is rebuilt after training."""

    name: str = Field(min_length=1, max_length=100)
    root: UserPath
    report: bool

    @field_validator("name")
    @classmethod
    def _fits_a_file_name(cls, name: str) -> str:
        if len(folder_name(name)) > 200:
            raise ValueError("must be shorter; as the name of a folder it would have more than 200 characters")
        return name

    @property
    def directory(self) -> Path:
        """The study's folder."""
        return Path(self.root).expanduser() / folder_name(self.name)


def folder_name(name: str) -> str:
    """Turn a study's name into one that a folder can have: what a file name cannot hold is percent-encoded."""
    folder = quote(name, safe=" !#$&'()+,;=@[]^_`{}~")
    return "%2E" + folder[1:] if folder.startswith(".") else folder


def _target(value: object) -> object:
    if isinstance(value, Mapping):
        return value.get("_target_", value.get("target"))
    return getattr(value, "target", None)


_OWN_MODELS = {
    f"overfit_lab.model.{name}" for name in ("MLP", "Linear", "CNN", "ResNet", "Transformer", "RandomFeatures")
}


def _model_tag(value: object) -> str:
    target = str(_target(value))
    return target if target in _OWN_MODELS else "custom"


def _data_tag(value: object) -> str:
    if isinstance(value, _Data):
        return next(tag for tag, kind in _DATA.items() if type(value) is kind)
    # What has a function to call may call any of its arguments so; the target of a file is a column.
    if isinstance(value, Mapping) and "_target_" not in value and value.get("kind") in ("file", "hub"):
        return str(value["kind"])
    return "custom" if _target(value) is not None else "bundled"


_DATA = {"bundled": BundledData, "custom": CustomData, "file": FileData, "hub": HubData}
DataConfig = Annotated[
    Annotated[BundledData, Tag("bundled")]
    | Annotated[CustomData, Tag("custom")]
    | Annotated[FileData, Tag("file")]
    | Annotated[HubData, Tag("hub")],
    Discriminator(_data_tag),
]
SplitConfig = Annotated[HoldoutSplit | KFoldSplit, Field(discriminator="kind")]
ModelConfig = Annotated[
    Annotated[MLPModel, Tag("overfit_lab.model.MLP")]
    | Annotated[LinearModel, Tag("overfit_lab.model.Linear")]
    | Annotated[CNNModel, Tag("overfit_lab.model.CNN")]
    | Annotated[ResNetModel, Tag("overfit_lab.model.ResNet")]
    | Annotated[TransformerModel, Tag("overfit_lab.model.Transformer")]
    | Annotated[RandomFeaturesModel, Tag("overfit_lab.model.RandomFeatures")]
    | Annotated[CustomModel, Tag("custom")],
    Discriminator(_model_tag),
]
PenaltyConfig = Annotated[NoPenalty | L2Penalty | L1Penalty | ElasticNetPenalty, Field(discriminator="kind")]
OptimizerConfig = Annotated[SGD | Momentum | Adam | AdamW | RMSprop | CustomOptimizer, Field(discriminator="kind")]


class Config(Section):
    """Everything that one run is told."""

    data: DataConfig
    split: SplitConfig
    model: ModelConfig
    task: TaskConfig
    penalty: PenaltyConfig
    optimizer: OptimizerConfig
    training: TrainingConfig
    trainer: TrainerConfig
    seed: Seed
    study: StudyConfig
    logger: LoggerConfig = LoggerConfig(_target_=None)


def parse(values: Mapping[str, Any]) -> Config:
    """Check a composed configuration.

    Args:
        values: Nested plain values, as Hydra composes them from `conf/` and the command line.

    Raises:
        UserError: A key is missing or unknown, or its value is not allowed. The first one found is named.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise refuse(error) from error


def refuse(error: ValidationError, *section: str) -> UserError:
    """Turn what pydantic says into a user's mistake in one line.

    Args:
        error: Of a schema, or of the arguments of a checked function.
        section: The keys above those that it names.
    """
    return UserError(sentence([{**one, "loc": (*section, *one["loc"])} for one in error.errors()]))


def sentence(errors: list[ErrorDetails]) -> str:
    """Turn pydantic's errors about the first faulty key into `key=value: what is allowed`."""
    key, first = _key(errors[0]), errors[0]
    if first["type"] in ("missing", "missing_keyword_only_argument"):
        return f"{key} is missing; give it as {key}=..."
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{key}={first['input']}: there is no such key"
    if first["type"] == "union_tag_invalid":
        return f"{key}.kind={first['ctx']['tag']}: allowed are {first['ctx']['expected_tags']}"
    # A value that may be one of several types has an error for each.
    texts = [re.sub(r"^\w+ should ", "must ", error["msg"]) for error in errors if _key(error) == key]
    allowed = " or ".join(texts).replace("Value error, ", "").replace(" or must be ", " or ")
    # Hydra has made a number of what may be a name, such as that of a column.
    number = isinstance(first["input"], int) and not isinstance(first["input"], bool)
    if number and first["type"] == "string_type" and isinstance(first["loc"][-1], str):
        allowed += f"; a text of digits is given in quotes, {typed(key, str(first['input']))}"
    return f"{key}={first['input']}: {allowed}"


_DOUBLE = '"'


def literal(text: str, mark: str = "'") -> str:
    """Write a text so that Hydra's grammar reads it as it is, between quotation marks."""
    # A backslash is one, but before a mark.
    return mark + re.sub(rf"(\\*)({mark}|$)", lambda m: 2 * m[1] + ("\\" + m[2] if m[2] else ""), text) + mark


def typed(key: str, text: str) -> str:
    """Write an override whose value is a text as it is typed in a shell: quoted for Hydra, and again for the shell."""
    special = re.search(r'["$`!\\]', text) is not None
    if special and "'" not in text:
        return f"'{key}={literal(text, _DOUBLE)}'"
    word = f"{key}={literal(text)}"
    return shlex.quote(word) if special else f'"{word}"'


def _key(error: ErrorDetails) -> str:
    return ".".join(str(part) for part in error["loc"] if not _is_tag(part))


# pydantic names the chosen member of a union inside the path; a user has never seen these names.
_TAGS = {
    *("bundled", "custom", "file", "hub", *_OWN_MODELS, "holdout", "kfold", "bool", "str"),
    *("none", "l2", "l1", "elastic_net", "sgd", "momentum", "adam", "adamw", "rmsprop"),
}


def _is_tag(part: int | str) -> bool:
    return part in _TAGS or (
        isinstance(part, str) and part.startswith(("literal[", "list[", "constrained-", "function-"))
    )


def run_id(config: Config) -> str:
    """Name a run by its content: a short hash of all that matters to its result.

    Keys at a default of the schema are left out, so a key that a later version adds does not rename old runs.
    """
    return _short_hash(_relevant(config))


def config_id(config: Config) -> str:
    """Name a configuration: as `run_id`, without the seed. Runs that share it differ in their seed alone."""
    values = _relevant(config)
    del values["seed"]
    return _short_hash(values)


def _relevant(config: Config) -> dict[str, Any]:
    return config.model_dump(
        exclude_defaults=True,
        exclude={"study": True, "logger": True, "trainer": {"accelerator"}, "training": {"checkpoint_seconds"}},
    )


def _short_hash(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def import_object(key: str, path: str) -> Any:  # noqa: ANN401 - it is whatever the user wrote
    """Import the object that a `_target_` names.

    Raises:
        UserError: There is no such module or no such name in it.
    """
    try:
        return pkgutil.resolve_name(path)
    except Exception as error:  # the user's module may raise anything, a SyntaxError to begin with
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"{key}={path}: {what}; allowed is the dotted path of something importable") from error


def conf_directory() -> Path:
    """The folder of the YAML files: inside an installed package, or at the top of the repository."""
    package = Path(__file__).resolve().parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"
