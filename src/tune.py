"""Stage `tune`: choose every learning rate, and resolve what is judged into one file per training.

settings/choices.json             what was chosen, and from what, see `bnstudy.tuning`
settings/train/<arm>/<seed>.json  the setting of each training of the study, see `bnstudy.settings`
settings/averages/<seed>.json     likewise, of those that carry the averages
settings/contest/<name>.json      likewise, of the two networks of the contest, without batch norm and with
settings/batch/<name>/<factor>.json  likewise, at their rate times each factor
"""

from bnstudy import run
from bnstudy.files import whole_folder, write
from bnstudy.params import load
from bnstudy.records import read_refine, read_sweep
from bnstudy.settings import SETTINGS, read_setting, setting, to_json
from bnstudy.tuning import choose, resolve, times


def main() -> None:
    params = load()
    first = params.refine.factors[0]
    networks = {finalist: read_setting(f"refine/{finalist}/{first}").name for finalist in params.refine.finalists}
    choices = choose(params, networks, read_sweep(params.sweep), read_refine(params.refine))

    write(SETTINGS / "choices.json", to_json(choices.model_dump()))
    long = params.long
    for arm in params.study.arms:
        with whole_folder(SETTINGS / "train" / arm) as folder:
            for seed in params.study.seeds:
                steps = long.steps if arm == long.arm and seed in long.arm_seeds else None
                write(folder / f"{seed}.json", resolve(params, choices, params.arms[arm], steps).to_bytes())
    with whole_folder(SETTINGS / "averages") as folder:
        for seed in params.study.seeds:
            steps = long.steps if seed in long.averages_seeds else None
            write(folder / f"{seed}.json", resolve(params, choices, params.averages, steps).to_bytes())
    with whole_folder(SETTINGS / "contest") as folder:
        for contestant, finalist in choices.contest.items():
            its, steps = choices.finalists[finalist], params.tolerance.steps
            content = setting(params, its.network, its.rate, steps, on_grid=False).to_bytes()
            write(folder / f"{contestant}.json", content)
    with whole_folder(SETTINGS / "batch") as folder:
        for contestant, finalist in choices.contest.items():
            its = choices.finalists[finalist]
            steps = max(params.batch.images // params.train.batch_size, 1)  # `batch` sets its own for each size
            for factor in params.batch.factors:
                content = setting(params, its.network, times(its.rate, factor), steps, on_grid=False).to_bytes()
                write(folder / contestant / f"{factor}.json", content)
    for line in choices.lines():
        print(line)


if __name__ == "__main__":
    run(main)
