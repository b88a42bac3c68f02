"""Stage `shortlist`: the best network of each kind goes on, at the rate that the sweep chose for it.

settings/refine/<finalist>/<factor>.json   its setting at that rate times the factor, see `bnstudy.settings`
"""

from bnstudy import run
from bnstudy.files import whole_folder, write
from bnstudy.params import load
from bnstudy.records import read_sweep
from bnstudy.settings import SETTINGS, setting
from bnstudy.tuning import choose_rates, shortlist, times


def main() -> None:
    params = load()
    choices = choose_rates(read_sweep(params.sweep), params.networks)
    with whole_folder(SETTINGS / "refine") as folder:
        for finalist in params.refine.finalists:
            network = shortlist(finalist, choices, params.networks)
            for factor in params.refine.factors:
                chosen = setting(params, network, times(choices[network].rate, factor), params.refine.steps)
                write(folder / finalist / f"{factor}.json", chosen.to_bytes())
            print(f"{finalist}: {network} at the rate {choices[network].rate:g}")


if __name__ == "__main__":
    run(main)
