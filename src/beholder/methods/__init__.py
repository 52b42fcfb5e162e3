"""The rows: every published method as presets of one configuration. A new method is a new file and a line here."""

from beholder.errors import InputError, nearest
from beholder.methods.branching import B2_DIFFURL, BRANCH_GRPO, TEMPFLOW_GRPO
from beholder.methods.dance_grpo import DANCE_GRPO
from beholder.methods.diffusion import D3PO, DDPO_IS, DDPO_SF, DENSE_REWARD, DPOK, LPO, SDPO, SPO, TDPO, TDPO_R
from beholder.methods.flow_grpo import FLOW_CPS, FLOW_GRPO, FLOW_GRPO_FAST
from beholder.methods.forward import FORWARD
from beholder.methods.general import GENERAL
from beholder.methods.guarded import FLOW_DPPO, GARDO, GRPO_GUARD, PREF_GRPO
from beholder.methods.mix_grpo import MIX_GRPO, MIX_GRPO_FLASH, MIX_GRPO_FLASH_STAR
from beholder.methods.pathwise import PATHWISE
from beholder.methods.preferences import OFFLINE
from beholder.methods.row import Method

FLOWS = (FLOW_GRPO, FLOW_GRPO_FAST, FLOW_CPS, DANCE_GRPO, MIX_GRPO, MIX_GRPO_FLASH, MIX_GRPO_FLASH_STAR)
BRANCHES = (TEMPFLOW_GRPO, BRANCH_GRPO, B2_DIFFURL)
TRUST = (GRPO_GUARD, FLOW_DPPO, PREF_GRPO, GARDO)
DIFFUSION = (DDPO_SF, DDPO_IS, DPOK, TDPO, TDPO_R, SDPO, DENSE_REWARD, D3PO, SPO, LPO)

METHODS: dict[str, Method] = {
    method.name: method for method in (*FLOWS, *BRANCHES, *TRUST, *DIFFUSION, *FORWARD, *GENERAL, *OFFLINE, *PATHWISE)
}


def find_method(name: str) -> Method:
    """The row called ``name``; InputError with the nearest name."""
    if name not in METHODS:
        raise InputError(f"method: unknown {name!r}; {nearest(name, METHODS)}")
    return METHODS[name]
