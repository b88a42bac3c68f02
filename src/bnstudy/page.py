"""Make `dvc plots show` and `dvc plots diff` draw without a network: `python -m bnstudy.page`, once a checkout.

DVC's own page loads Vega from the internet. This writes `.dvc/page.html`, which holds Vega itself (Vega-Lite and
Vega-Embed too), and names it in `.dvc/config.local`; neither file is in git.
"""

import subprocess
import sys
from pathlib import Path

import vl_convert

from bnstudy.params import BadInput
from bnstudy.stage import run, write

# DVC puts the charts in place of {plot_divs}. Its images carry inline styles: hence !important.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>bnstudy</title>
<style>
  body { margin: 0; background: #f3f5f7; color: #1d2733; line-height: 1.5;
         font-family: system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; }
  header, main { max-width: 1040px; margin: 0 auto; padding: 0 16px; }
  header { padding-top: 32px; }
  h1 { margin: 0; font-size: 28px; letter-spacing: -0.01em; }
  header p { margin: 4px 0 20px; color: #5b6570; }
  code { padding: 1px 5px; border-radius: 4px; background: #e4e8ec; font-size: 0.9em; }
  main > div { box-sizing: border-box; width: 100%; margin: 0 0 20px; padding: 20px 24px; overflow-x: auto;
               border: 1px solid #dde2e7 !important; border-radius: 10px; background: white; }
  main > div.vega-embed { display: block; }
  main > div { text-align: left !important; white-space: normal !important; }
  main > div > div { border: 0 !important; margin: 0 !important; max-width: 100%; }
  main p { margin: 0 0 8px; font-size: 13px; color: #5b6570; }
  img { display: block; max-width: 100%; height: auto; }
</style>
<script>
VEGA
</script>
</head>
<body>
<header>
<h1>bnstudy</h1>
<p>Batch normalization on MNIST. Point at a chart to read its values.
<code>dvc plots diff REVISION</code> draws two revisions in one chart, told apart by dashes.</p>
</header>
<main>
{plot_divs}
</main>
</body>
</html>
"""


def main() -> None:
    if not Path(".dvc/config").is_file():
        raise BadInput(".dvc/config: is not here; run this in the root of the repository")
    scripts = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", r"<\/script")
    write(Path(".dvc/page.html"), PAGE.replace("VEGA", scripts).encode())
    command = [sys.executable, "-m", "dvc", "config", "--local", "plots.html_template", "page.html"]
    if subprocess.run(command).returncode:  # noqa: S603
        raise BadInput("`dvc config` could not name .dvc/page.html in .dvc/config.local")


if __name__ == "__main__":
    run(main)
