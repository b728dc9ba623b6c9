"""joyful's model with torch_geometric's graph layers in place of its own: the same weights, the same outputs.

Both of its layers take an edge list; joyful's take the structure that the host derived from the lengths.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import RGCNConv, TransformerConv

from joyful.model.dialogue_graph import AttentionBlocks, Edges, structure
from joyful.model.graph_layers import GraphTransformer, RelationalGraphConv, Speakers, relation
from joyful.model.graph_model import GraphModel, ModelOutput
from joyful.records import Batch


class GeometricConv(nn.Module):
    """RGCNConv with mean aggregation, called as joyful's RelationalGraphConv."""

    def __init__(self, layer: RelationalGraphConv) -> None:
        super().__init__()
        relations, size_in, size_out = layer.weight.shape
        self.n_speakers = layer.n_speakers
        self.conv = RGCNConv(size_in, size_out, num_relations=relations, aggr="mean")
        self.conv.load_state_dict(layer.state_dict())

    def forward(self, x_NH: Tensor, speakers: Speakers, edges: Edges) -> Tensor:
        if edges.kept is not None:  # it knows no weights of edges: those that are not kept are taken out
            kept = edges.kept.bool()
            edges = Edges(edges.source[kept], edges.target[kept])
        index = torch.stack([edges.source, edges.target])
        return self.conv(x_NH, index, relation(speakers.of, edges, self.n_speakers))


class GeometricTransformer(nn.Module):
    """TransformerConv, called as joyful's GraphTransformer, on the edges that `edges` was set to."""

    def __init__(self, layer: GraphTransformer) -> None:
        super().__init__()
        size_out = layer.lin_query.out_features // layer.heads
        self.conv = TransformerConv(layer.lin_query.in_features, size_out, heads=layer.heads)
        self.conv.load_state_dict(layer.state_dict())
        self.edges: Edges | None = None

    def forward(self, x_NH: Tensor, blocks: AttentionBlocks) -> Tensor:
        assert self.edges is not None, "set by GeometricModel before each pass"
        return self.conv(x_NH, torch.stack([self.edges.source, self.edges.target]))


class GeometricModel(GraphModel):
    """GraphModel whose graph layers are torch_geometric's; made by `geometric`."""

    def forward(self, batch: Batch, *rest: Any, **named: Any) -> ModelOutput:
        layer: object = self.graph_transformer
        assert isinstance(layer, GeometricTransformer)
        layer.edges = structure(batch, self.settings.wp, self.settings.wf).edges
        return super().forward(batch, *rest, **named)


def geometric(model: GraphModel) -> GeometricModel:
    """The same model with torch_geometric's layers and the same weights. The model given is used up."""
    conv, transformer = GeometricConv(model.graph_conv), GeometricTransformer(model.graph_transformer)
    model.__class__ = GeometricModel
    model.graph_conv, model.graph_transformer = conv, transformer  # type: ignore[assignment]
    assert isinstance(model, GeometricModel)
    return model
