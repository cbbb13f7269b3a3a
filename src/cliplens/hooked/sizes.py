"""Check that a tower is complete, and that its parts have the sizes that its configuration declares."""

from cliplens.errors import MismatchError
from cliplens.hooked.attention import HookedAttention
from cliplens.hooked.base import AbstractTower
from cliplens.hooked.mlp import HookedMLP


def check_complete(tower: AbstractTower) -> None:
    """Check that the `__init__` of a tower set everything that the base class uses.

    Raises:
        MismatchError: an attribute is missing; the message names it.
    """
    needed = {
        tower.stack_name: f"self.{tower.stack_name} = nn.ModuleList(...)",
        "hook_pooled": "self.hook_pooled = hook_point(width of the pooled vector)",
    }
    for name, line in needed.items():
        if not hasattr(tower, name):
            raise _unfinished(tower, name, f"add {line} to its __init__, before self.setup()")


def check_set_up(tower: AbstractTower) -> None:
    """Check that `setup` was called.

    Raises:
        MismatchError: it was not.
    """
    if "hook_dict" not in vars(tower):
        raise _unfinished(tower, "hook names", "call self.setup() at the end of its __init__")


def _unfinished(tower: AbstractTower, missing: str, fix: str) -> MismatchError:
    return MismatchError(
        expected=f"a complete tower from {type(tower).__name__}", found=f"one without {missing}", fix=fix
    )


def check_sizes(tower: AbstractTower) -> None:
    """Check numbers of layers and heads, and the widths of attention and MLP, against the weights.

    Raises:
        MismatchError: a size differs; the message names the module, the declared and the found size.
    """
    cfg = tower.cfg
    layers = len(tower.get_submodule(tower.stack_name))
    _same("n_layers", cfg.n_layers, layers, f"blocks in self.{tower.stack_name}")
    for name, module in tower.named_modules():
        if not name.startswith(f"{tower.stack_name}."):
            continue
        if isinstance(module, HookedAttention):
            _check_attention(tower, name, module)
        elif isinstance(module, HookedMLP):
            _same("d_mlp", cfg.d_mlp, module.W_in.shape[1], f"outputs of the first layer of {name}")
            _same("d_model", cfg.d_model, module.W_in.shape[0], f"inputs of the first layer of {name}")


def _check_attention(tower: AbstractTower, name: str, attention: HookedAttention) -> None:
    cfg, heads = tower.cfg, attention.n_heads * attention.d_head
    _same("n_heads", cfg.n_heads, attention.n_heads, f"heads passed to {name}")
    _same("d_head", cfg.d_head, attention.d_head, f"d_head passed to {name}")
    stock = getattr(attention.stock, "num_heads", None)
    if isinstance(stock, int):
        _same("n_heads", attention.n_heads, stock, f"heads of the stock module of {name}")
    for letter, (weight, _) in zip("qkv", attention.qkv, strict=True):
        _same("n_heads * d_head", heads, weight.shape[0], f"outputs of the {letter} projection of {name}")
        _same("d_model", cfg.d_model, weight.shape[1], f"inputs of the {letter} projection of {name}")
    _same("n_heads * d_head", heads, attention.out[0].shape[1], f"inputs of the output projection of {name}")


def _same(size: str, declared: int, found: int, where: str) -> None:
    if declared != found:
        raise MismatchError(
            expected=f"{size} = {declared}, as declared",
            found=f"{found} {where}",
            fix=f"correct {size} in the TowerConfig and where the parts of the blocks are made",
        )
