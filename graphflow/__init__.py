"""GraphFlow: diffusion workflows as plain JSON graphs, typed, checked as a whole, and run by one command.

Importing this package, building a workflow and validating one never import torch.
"""

from pydantic import Field

from graphflow.build import NodeHandle, Run, Workflow, load, loads
from graphflow.environment import flag, is_offline
from graphflow.errors import (
    Cancelled,
    GraphFlowError,
    MissingError,
    NodeDefinitionError,
    Position,
    Problem,
    WorkflowError,
    nearest,
)
from graphflow.file_answers import file_answer
from graphflow.files import cache_folder, write_atomically
from graphflow.graph.binder import bind
from graphflow.graph.bound import Graph
from graphflow.machine.compute import Compute
from graphflow.machine.memory import Memory
from graphflow.machine.switches import Switches
from graphflow.node import Context, Node, Port, Ref
from graphflow.planning.expand import Expansion
from graphflow.planning.planner import Plan, Step, plan
from graphflow.registry import Registry, default_registry
from graphflow.run.scheduler import execute
from graphflow.store.disk import DiskStore
from graphflow.store.interface import MemoryCache, Store
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
    "Switches",
    "Text",
    "Workflow",
    "WorkflowError",
    "__version__",
    "bind",
    "cache_folder",
    "default_registry",
    "execute",
    "file_answer",
    "flag",
    "is_offline",
    "load",
    "loads",
    "nearest",
    "plan",
    "write_atomically",
]
