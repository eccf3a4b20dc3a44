"""GraphFlow: diffusion workflows as plain JSON graphs, typed, checked as a whole, and run by one command.

Importing this package, building a workflow and validating one never import torch.
"""

from pydantic import Field

from graphflow.bind import bind
from graphflow.build import NodeHandle, Run, Workflow, load, loads
from graphflow.cache import MemoryCache, Store
from graphflow.device import Compute
from graphflow.disk_store import DiskStore
from graphflow.errors import (
    Cancelled,
    GraphFlowError,
    MissingError,
    NodeDefinitionError,
    Position,
    Problem,
    WorkflowError,
)
from graphflow.expand import Expansion
from graphflow.graph import Graph
from graphflow.memory import Memory
from graphflow.node import Context, Node, Port, Ref
from graphflow.one_look import looked_up
from graphflow.plan import Plan, Step, plan
from graphflow.registry import Registry, default_registry
from graphflow.scheduler import execute
from graphflow.types import (
    Conditioning,
    DepthMap,
    Image,
    InputFile,
    Latent,
    Mask,
    ModelRef,
    PortType,
    Seed,
    Text,
)
from graphflow.version import __version__

__all__ = [
    "Cancelled",
    "Compute",
    "Conditioning",
    "Context",
    "DepthMap",
    "DiskStore",
    "Expansion",
    "Field",
    "Graph",
    "GraphFlowError",
    "Image",
    "InputFile",
    "Latent",
    "Mask",
    "Memory",
    "MemoryCache",
    "MissingError",
    "ModelRef",
    "Node",
    "NodeDefinitionError",
    "NodeHandle",
    "Plan",
    "Port",
    "PortType",
    "Position",
    "Problem",
    "Ref",
    "Registry",
    "Run",
    "Seed",
    "Step",
    "Store",
    "Text",
    "Workflow",
    "WorkflowError",
    "__version__",
    "bind",
    "default_registry",
    "execute",
    "load",
    "loads",
    "looked_up",
    "plan",
]
