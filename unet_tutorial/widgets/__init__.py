"""The widgets of the book: alive in JupyterLab, in Colab, and on a page without a kernel."""

from unet_tutorial.widgets._border_weights import BorderWeightLab
from unet_tutorial.widgets._elastic_playground import ElasticPlayground
from unet_tutorial.widgets._feature_maps import FeatureMaps
from unet_tutorial.widgets._host import SCRIPT, STYLE, BookWidget, site_script, style, write_site
from unet_tutorial.widgets._live import LiveU, live, write_page
from unet_tutorial.widgets._pixel_origin import PixelOrigin
from unet_tutorial.widgets._receptive_field import ReceptiveFieldWidget
from unet_tutorial.widgets._shape_explorer import ShapeExplorer, explore
from unet_tutorial.widgets._skip_comparison import SkipComparison
from unet_tutorial.widgets._skip_surgery import SkipSurgery
from unet_tutorial.widgets._steppers import ConvolutionStepper, PoolingStepper, TransposedStepper
from unet_tutorial.widgets._tile_planner import TilePlanner
from unet_tutorial.widgets._training_playback import TrainingPlayback

__all__ = [
    "SCRIPT",
    "STYLE",
    "BookWidget",
    "BorderWeightLab",
    "ConvolutionStepper",
    "ElasticPlayground",
    "FeatureMaps",
    "LiveU",
    "PixelOrigin",
    "PoolingStepper",
    "ReceptiveFieldWidget",
    "ShapeExplorer",
    "SkipComparison",
    "SkipSurgery",
    "TilePlanner",
    "TrainingPlayback",
    "TransposedStepper",
    "explore",
    "live",
    "site_script",
    "style",
    "write_page",
    "write_site",
]
