//! What is trained: variables by their canonical names, and what each of them is.

use candle_core::Var;

/// What a parameter is. It decides on weight decay and on which optimiser suits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A matrix of a transformer block.
    BlockMatrix,
    /// A matrix elsewhere: the patch embedding, a projection.
    Matrix,
    /// A table of vectors: token and position embeddings.
    Embedding,
    /// A single vector that is added or multiplied: the class token, gains of residual branches.
    Vector,
    /// Gain or offset of a norm.
    Norm,
    /// A bias.
    Bias,
    /// The logarithm of the factor on cosines.
    LogitScale,
    /// What is added to scaled cosines.
    LogitBias,
    /// One of the two small matrices of a low-rank adapter.
    Adapter,
    /// The scaffold's table of one vector per concept.
    Concepts,
}

impl Role {
    /// The role of the parameter of this canonical name.
    pub fn of(name: &str) -> Self {
        let last = name.rsplit('.').next().unwrap_or(name);
        let owner = name.rsplit('.').nth(1).unwrap_or_default();
        match name {
            "logit_scale" => Self::LogitScale,
            "logit_bias" => Self::LogitBias,
            CONCEPTS => Self::Concepts,
            "text.tokens" | "text.positions" | "vision.positions" => Self::Embedding,
            "vision.class" => Self::Vector,
            _ if name.contains(".adapter.") => Self::Adapter,
            _ if owner.starts_with("norm") => Self::Norm,
            _ if last == "bias" => Self::Bias,
            _ if last.starts_with("scale") => Self::Vector,
            _ if name.contains(".blocks.") => Self::BlockMatrix,
            _ => Self::Matrix,
        }
    }

    /// Whether weight decay draws it to zero: matrices and tables, as in the reference implementations.
    pub fn decays(self) -> bool {
        match self {
            Self::BlockMatrix | Self::Matrix | Self::Embedding | Self::Adapter | Self::Concepts => true,
            Self::Vector | Self::Norm | Self::Bias | Self::LogitScale | Self::LogitBias => false,
        }
    }
}

/// Name of the scaffold's table.
pub const CONCEPTS: &str = "scaffold.concepts";

/// A variable that is trained.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Its canonical name.
    pub name: String,
    /// Its values.
    pub var: Var,
    /// What it is.
    pub role: Role,
}

impl Parameter {
    /// A parameter of this canonical name.
    pub fn new(name: impl Into<String>, var: Var) -> Self {
        let name = name.into();
        Self { role: Role::of(&name), name, var }
    }

    /// How many matrices are stacked in this one: queries, keys and values are.
    pub fn stacked(&self) -> usize {
        if self.role == Role::BlockMatrix && self.name.ends_with("qkv.weight") { 3 } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_follow_from_canonical_names() {
        let cases = [
            ("vision.blocks.3.attention.qkv.weight", Role::BlockMatrix, true),
            ("vision.blocks.3.attention.qkv.bias", Role::Bias, false),
            ("vision.blocks.3.attention.qkv.adapter.q.a", Role::Adapter, true),
            ("text.blocks.0.norm1.weight", Role::Norm, false),
            ("text.blocks.0.norm2.bias", Role::Norm, false),
            ("text.blocks.0.mlp.fc1.bias", Role::Bias, false),
            ("vision.blocks.0.scale1", Role::Vector, false),
            ("vision.class", Role::Vector, false),
            ("vision.positions", Role::Embedding, true),
            ("vision.norm_post.weight", Role::Norm, false),
            ("vision.patch.weight", Role::Matrix, true),
            ("text.projection.weight", Role::Matrix, true),
            ("text.projection.bias", Role::Bias, false),
            ("logit_scale", Role::LogitScale, false),
            ("logit_bias", Role::LogitBias, false),
        ];
        for (name, role, decays) in cases {
            assert_eq!(Role::of(name), role, "{name}");
            assert_eq!(role.decays(), decays, "{name}");
        }
    }
}
