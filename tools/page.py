"""Make `dvc plots show` and `dvc plots diff` draw without a network: `python tools/page.py`, once per checkout.

DVC's own page loads Vega from the internet. This writes `.dvc/page.html`, which holds Vega itself (Vega-Lite and
Vega-Embed too), and names it in `.dvc/config.local`; neither file is in git.
"""

import subprocess
import sys
from pathlib import Path

import vl_convert

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from bnstudy import run
from bnstudy.files import write

# DVC puts the charts in place of {plot_divs}. Its images carry inline styles: hence !important in this page.
PAGE = Path(__file__).with_name("page.html")


def main() -> None:
    command = [sys.executable, "-m", "dvc", "config", "--local", "plots.html_template", "page.html"]
    if code := subprocess.run(command).returncode:
        sys.exit(code)  # DVC has said why
    scripts = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", r"<\/script")
    write(Path(".dvc/page.html"), PAGE.read_text(encoding="utf-8").replace("VEGA", scripts).encode())


if __name__ == "__main__":
    run(main)
