"""Convolutional networks: every net of the story, one trainer, one command line.

nets        create, load, list_models, info, summary, compare, preprocessing, list_weights
your own    register, unregister, Net, Stage; register_data
training    train, cross_validate, browse, profile, report; Config, Run; InputError, Interrupted
photos      check, pick, probe, finetune; CNNClassifier
using       predict, evaluate, judge, compare_runs, export, optimize
committees  combine, Ensemble, train_committee, soup, diversity, vote_odds
rooms       visualize (looking inside a net), labs (what lectures claim, put to the test)

Each is imported when it is first used, so that `import cnnzoo` itself costs next to nothing.
"""

import os
from typing import TYPE_CHECKING

from cnnzoo import lazy

__version__ = "0.1.0"

# On a Mac's GPU, what torch cannot compute there the processor does; read when torch is imported.
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

if TYPE_CHECKING:  # what is public, see `lazy`
    from cnnzoo import labs as labs
    from cnnzoo import visualize as visualize
    from cnnzoo.browsing import browse as browse
    from cnnzoo.checkpoint import Run as Run
    from cnnzoo.claims import info as info
    from cnnzoo.compare import compare as compare
    from cnnzoo.config import Config as Config
    from cnnzoo.data.given import register_data as register_data
    from cnnzoo.ensemble.committees import train_committee as train_committee
    from cnnzoo.ensemble.odds import vote_odds as vote_odds
    from cnnzoo.ensemble.runs import Ensemble as Ensemble
    from cnnzoo.ensemble.runs import combine as combine
    from cnnzoo.ensemble.runs import report as report
    from cnnzoo.ensemble.soup import soup as soup
    from cnnzoo.ensemble.why import diversity as diversity
    from cnnzoo.errors import InputError as InputError
    from cnnzoo.errors import Interrupted as Interrupted
    from cnnzoo.estimator import CNNClassifier as CNNClassifier
    from cnnzoo.evaluate import compare_runs as compare_runs
    from cnnzoo.evaluate import evaluate as evaluate
    from cnnzoo.evaluate import judge as judge
    from cnnzoo.export import export as export
    from cnnzoo.folds import cross_validate as cross_validate
    from cnnzoo.inference.optimized import optimize as optimize
    from cnnzoo.learn import finetune as finetune
    from cnnzoo.learn import probe as probe
    from cnnzoo.models._base import Net as Net
    from cnnzoo.predict import predict as predict
    from cnnzoo.profiling import profile as profile
    from cnnzoo.registry import Stage as Stage
    from cnnzoo.run import train as train
    from cnnzoo.summary import summary as summary
    from cnnzoo.transfer.doctor import check as check
    from cnnzoo.transfer.ranking import pick as pick
    from cnnzoo.weights.table import list_weights as list_weights
    from cnnzoo.zoo import create as create
    from cnnzoo.zoo import list_models as list_models
    from cnnzoo.zoo import load as load
    from cnnzoo.zoo import preprocessing as preprocessing
    from cnnzoo.zoo import register as register
    from cnnzoo.zoo import unregister as unregister

lazy.attach(__name__)
