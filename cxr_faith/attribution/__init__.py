"""Attribution methods. Adding one: a file with a `Method` class, and a line here."""

from cxr_faith.attribution.answer_map import AnswerMap
from cxr_faith.attribution.attention import Attention, Rollout
from cxr_faith.attribution.attention_sinks import AttentionSinkMasked
from cxr_faith.attribution.base import METHODS, Attribution, AttributionBatch, Method, build_methods
from cxr_faith.attribution.baselines import Center, Edges, Oracle, OracleNear, RandomMap
from cxr_faith.attribution.blackbox import Occlusion, Rise
from cxr_faith.attribution.cleann import Cleann
from cxr_faith.attribution.counterfactual import Counterfactual
from cxr_faith.attribution.eagle import Eagle
from cxr_faith.attribution.ensemble import Ensemble
from cxr_faith.attribution.grad_cam import GradCam
from cxr_faith.attribution.gradients import Gradient, GradXInput, IntegratedGradients
from cxr_faith.attribution.greedy import Greedy
from cxr_faith.attribution.igos import IGOSPP
from cxr_faith.attribution.map_file import MapFile
from cxr_faith.attribution.multi_scale import MultiScale
from cxr_faith.attribution.relevancy import Chefer, CheferGlobal
from cxr_faith.attribution.sae import SAE
from cxr_faith.attribution.smooth_grad import SmoothGrad
from cxr_faith.attribution.tam import Tam

METHODS["attention"] = Attention
METHODS["attention_sink_masked"] = AttentionSinkMasked
METHODS["rollout"] = Rollout
METHODS["chefer"] = Chefer
METHODS["chefer_global"] = CheferGlobal
METHODS["gradient"] = Gradient
METHODS["grad_x_input"] = GradXInput
METHODS["integrated_gradients"] = IntegratedGradients
METHODS["igos_pp"] = IGOSPP
METHODS["sae"] = SAE
METHODS["grad_cam"] = GradCam
METHODS["smooth_grad"] = SmoothGrad
METHODS["tam"] = Tam
METHODS["cleann"] = Cleann
METHODS["occlusion"] = Occlusion
METHODS["rise"] = Rise
METHODS["greedy"] = Greedy
METHODS["eagle"] = Eagle
METHODS["multi_scale"] = MultiScale
METHODS["ensemble"] = Ensemble
METHODS["answer_map"] = AnswerMap
METHODS["counterfactual"] = Counterfactual
METHODS["random_map"] = RandomMap
METHODS["center"] = Center
METHODS["edges"] = Edges
METHODS["oracle"] = Oracle
METHODS["oracle_near"] = OracleNear
METHODS["file"] = MapFile

__all__ = ["METHODS", "Attribution", "AttributionBatch", "Method", "build_methods"]
