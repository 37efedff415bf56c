"""``python -m unet_tutorial``: the command line, as launchers such as `torchrun` start it."""

from unet_tutorial.cli import app

if __name__ == "__main__":
    app(prog_name="unet-tutorial")
