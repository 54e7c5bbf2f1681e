//! The affine map with its gradients.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Error, Layout, Result, Shape, Tensor};
use crossmodal_kernels::gemm::{Finish, Gradient, PackedWeight, Rows, Target, Weight, product};

use super::gradients::returned;
use super::{Values, crew, elements, session};

/// `x W^T + b`.
struct Affine;

/// Applies `x W^T + b` to the last dimension of `x`.
///
/// # Errors
/// A last dimension other than the weight's.
pub(crate) fn affine(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    match bias {
        Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, Affine),
        None => x.apply_op2(&weight, Affine),
    }
}

fn forward(
    (x, x_layout): (&CpuStorage, &Layout),
    (weight, weight_layout): (&CpuStorage, &Layout),
    bias: Option<&[f32]>,
) -> Result<(CpuStorage, Shape)> {
    let (out, inner) = weight_layout.shape().dims2()?;
    let mut shape = x_layout.dims().to_vec();
    if shape.last() != Some(&inner) || inner == 0 {
        return Err(Error::Msg(format!("a map from {inner} elements meets a tensor of shape {shape:?}")).bt());
    }
    if bias.is_some_and(|bias| bias.len() != out) {
        return Err(Error::Msg(format!("a bias of {:?} elements for {out} outputs", bias.map(<[f32]>::len))).bt());
    }
    if let Some(last) = shape.last_mut() {
        *last = out;
    }
    let (x, weight) = (elements(x, x_layout)?, elements(weight, weight_layout)?);
    let rows = Rows::new(x, inner);
    let mut y = vec![0.0; rows.count() * out];
    let session = session();
    let packed = PackedWeight::new(crew(&session), Weight::OutDepth(weight), inner);
    product(crew(&session), rows, &packed, Finish { bias, ..Finish::STORE }, Target::new(&mut y, out));
    Ok((CpuStorage::F32(y), Shape::from(shape)))
}

/// Gradients of input, weight and bias, where they are needed.
type Gradients = (Option<Tensor>, Option<Tensor>, Option<Tensor>);

fn backward(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, dy: &Tensor) -> Result<Gradients> {
    let (out, inner) = weight.dims2()?;
    let dy = dy.contiguous()?;
    let (dy, x_values) = (Values::of(&dy)?, Values::of(x)?);
    let (outputs, inputs) = (Rows::new(&dy, out), Rows::new(&x_values, inner));
    let session = session();
    let crew = crew(&session);
    let mut dx = None;
    if x.track_op() {
        let packed = PackedWeight::new(crew, Weight::DepthOut(&Values::of(weight)?), out);
        let mut gradient = vec![0.0; inputs.count() * inner];
        product(crew, outputs, &packed, Finish::STORE, Target::new(&mut gradient, inner));
        dx = returned(x, gradient)?;
    }
    let mut db = bias.filter(|bias| bias.track_op()).map(|_| vec![0.0; out]);
    let mut dw = None;
    if weight.track_op() {
        let mut gradient = vec![0.0; out * inner];
        let sums = Gradient { outputs, inputs, scale: 1.0, accumulate: false };
        sums.run(crew, &mut gradient, db.as_deref_mut());
        dw = returned(weight, gradient)?;
    } else if let Some(db) = &mut db {
        crossmodal_kernels::gemm::column_sums(crew, outputs, false, db);
    }
    let db = match (bias, db) {
        (Some(bias), Some(db)) => returned(bias, db)?,
        _ => None,
    };
    Ok((dx, dw, db))
}

impl CustomOp2 for Affine {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, w: &CpuStorage, wl: &Layout) -> Result<(CpuStorage, Shape)> {
        forward((x, xl), (w, wl), None)
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dw, _) = backward(x, w, None, dy)?;
        Ok((dx, dw))
    }
}

impl CustomOp3 for Affine {
    fn name(&self) -> &'static str {
        "linear with bias"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        forward((x, xl), (w, wl), Some(elements(b, bl)?))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, b: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Gradients> {
        backward(x, w, Some(b), dy)
    }
}
