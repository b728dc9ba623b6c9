"""joyful's model with torch_geometric's graph layers, with the same weights and the same outputs.

torch_geometric's layers take an edge list. joyful's layers take the structure that is derived from the dialogue
lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import RGCNConv, TransformerConv

from joyful.model.joyful import GraphModel, GraphTransformer, ModelOutput, RelationalGraphConv, structure
from joyful.model.kernels.attention_blocks import AttentionBlocks
from joyful.model.kernels.relational import Edges, relation
from joyful.records import Batch


class GeometricConv(nn.Module):
    """RGCNConv with mean aggregation and the interface of joyful's RelationalGraphConv."""

    def __init__(self, layer: RelationalGraphConv) -> None:
        super().__init__()
        relations, size_in, size_out = layer.weight.shape
        self.conv = RGCNConv(size_in, size_out, num_relations=relations, aggr="mean")
        self.conv.load_state_dict(layer.state_dict())

    def forward(self, views_NH: Sequence[Tensor], batch: Batch, edges: Sequence[Edges]) -> list[Tensor]:
        return [self._view(x_NH, batch, some) for x_NH, some in zip(views_NH, edges, strict=True)]

    def _view(self, x_NH: Tensor, batch: Batch, edges: Edges) -> Tensor:
        if edges.kept is not None:  # RGCNConv has no edge weights, so dropped edges are removed
            kept = edges.kept.bool()
            edges = Edges(edges.source[kept], edges.target[kept])
        index = torch.stack([edges.source, edges.target])
        output: Tensor = self.conv(x_NH, index, relation(batch.speakers, edges.source, edges.target, batch.n_speakers))
        return output


class GeometricTransformer(nn.Module):
    """TransformerConv with the interface of joyful's GraphTransformer. Set `edges` before each forward pass."""

    def __init__(self, layer: GraphTransformer) -> None:
        super().__init__()
        size_out = layer.lin_query.out_features // layer.heads
        self.conv = TransformerConv(layer.lin_query.in_features, size_out, heads=layer.heads)
        self.conv.load_state_dict(layer.state_dict())
        self.edges: Edges | None = None

    def forward(self, x_NH: Tensor, blocks: AttentionBlocks) -> Tensor:
        assert self.edges is not None, "GeometricModel sets the edges before each pass"
        return self.conv(x_NH, torch.stack([self.edges.source, self.edges.target]))


class GeometricModel(GraphModel):
    """GraphModel with the graph layers of torch_geometric. `geometric` creates it."""

    def forward(self, batch: Batch, *rest: Any, **named: Any) -> ModelOutput:
        layer: object = self.graph_transformer
        assert isinstance(layer, GeometricTransformer)
        layer.edges = structure(batch, self.settings.wp, self.settings.wf).edges
        return super().forward(batch, *rest, **named)


def geometric(model: GraphModel) -> GeometricModel:
    """Replace the graph layers of a model in place with torch_geometric's layers of the same weights."""
    conv, transformer = GeometricConv(model.graph_conv), GeometricTransformer(model.graph_transformer)
    model.__class__ = GeometricModel
    model.graph_conv, model.graph_transformer = conv, transformer  # type: ignore[assignment]
    assert isinstance(model, GeometricModel)
    return model
