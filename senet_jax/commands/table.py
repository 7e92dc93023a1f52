"""The commands by their names."""

from senet_jax.commands import (
    average,
    checkpoints,
    convert,
    evaluate,
    excitation,
    export,
    models,
    predict,
    prepare,
    report,
    show_data,
    train,
)

COMMANDS = {
    "evaluate": evaluate,
    "predict": predict,
    "checkpoints": checkpoints,
    "average": average,
    "report": report,
    "excitation": excitation,
    "convert": convert,
    "export": export,
    "models": models,
    "prepare": prepare,
}
"""The commands that argparse reads."""

CONFIG_COMMANDS = {"train": train, "show-data": show_data}
"""The commands that tyro reads: a flag for every field of a config."""

EXAMPLES = {name: module.EXAMPLES for name, module in {**CONFIG_COMMANDS, **COMMANDS}.items()}
