"""Looking inside a net: what its layers have learned, and what an answer rests on.

Each way to look is a function, imported when first used. It gives a frozen result with the arrays, `.figure()` and
`.save(file)`, which a notebook draws.
"""

from typing import TYPE_CHECKING

from cnnzoo import lazy

if TYPE_CHECKING:  # what is public, see `lazy`
    from cnnzoo.visualize.activations import activations as activations
    from cnnzoo.visualize.activations import walk as walk
    from cnnzoo.visualize.atlas import map as map
    from cnnzoo.visualize.attribution import gradcam as gradcam
    from cnnzoo.visualize.attribution import guided as guided
    from cnnzoo.visualize.attribution import occlusion as occlusion
    from cnnzoo.visualize.attribution import saliency as saliency
    from cnnzoo.visualize.compare import compare as compare
    from cnnzoo.visualize.concepts import concepts as concepts
    from cnnzoo.visualize.deconv import deconv as deconv
    from cnnzoo.visualize.faithfulness import deletion_insertion as deletion_insertion
    from cnnzoo.visualize.faithfulness import pointing as pointing
    from cnnzoo.visualize.faithfulness import road as road
    from cnnzoo.visualize.faithfulness import sanity as sanity
    from cnnzoo.visualize.filters import filters as filters
    from cnnzoo.visualize.hooks import layer_of as layer_of
    from cnnzoo.visualize.hooks import stages_of as stages_of
    from cnnzoo.visualize.hooks import untouched as untouched
    from cnnzoo.visualize.hooks import watching as watching
    from cnnzoo.visualize.invert import invert as invert
    from cnnzoo.visualize.maximise import maximise as maximise
    from cnnzoo.visualize.neighbours import neighbours as neighbours
    from cnnzoo.visualize.sparsity import sparsity as sparsity
    from cnnzoo.visualize.subject import Subject as Subject
    from cnnzoo.visualize.tcav import tcav as tcav

lazy.attach(__name__)
