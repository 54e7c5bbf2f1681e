//! Layer normalisation with its gradients.

use candle_core::{CpuStorage, CustomOp3, Error, Layout, Result, Shape, Tensor};
use crossmodal_kernels::gemm::Normalisation;
use crossmodal_kernels::layer_norm::{NormGradient, forward, statistics};
use crossmodal_kernels::team::Crew;

use super::gradients::returned;
use super::{Values, crew, elements, session};

/// `(x - mean) / sqrt(variance + eps) * weight + bias` over the last dimension. Statistics are found out again for the gradients: two
/// passes over rows that are read anyway.
struct LayerNorm {
    eps: f32,
}

/// Normalises the last dimension of `x`.
///
/// # Errors
/// A last dimension other than the parameters'.
pub(crate) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, LayerNorm { eps: eps as f32 })
}

/// Mean and reciprocal standard deviation of each row.
pub(crate) fn row_statistics(crew: Crew<'_>, x: &[f32], width: usize, eps: f32) -> Vec<[f32; 2]> {
    let mut found = vec![[0.0; 2]; x.len() / width];
    statistics(crew, x, width, eps, &mut found);
    found
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer norm"
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
        let (x, weight, bias) = (elements(x, xl)?, elements(w, wl)?, elements(b, bl)?);
        let width = weight.len();
        if xl.dims().last() != Some(&width) || bias.len() != width || width == 0 {
            let (found, bias) = (xl.dims(), bias.len());
            return Err(Error::Msg(format!("a norm of {width} and {bias} elements meets a tensor of {found:?}")).bt());
        }
        let session = session();
        let statistics = row_statistics(crew(&session), x, width, self.eps);
        let mut y = vec![0.0; x.len()];
        forward(crew(&session), x, Normalisation { statistics: &statistics, weight, bias }, &mut y);
        Ok((CpuStorage::F32(y), xl.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let (values, weight, bias, dy) = (Values::of(x)?, Values::of(w)?, Values::of(b)?, Values::of(&dy)?);
        let session = session();
        let crew = crew(&session);
        let statistics = row_statistics(crew, &values, weight.len(), self.eps);
        let norm = Normalisation { statistics: &statistics, weight: &weight, bias: &bias };
        let mut dx = x.track_op().then(|| vec![0.0; values.len()]);
        let wanted = w.track_op() || b.track_op();
        let (mut dw, mut db) = (vec![0.0; weight.len()], vec![0.0; weight.len()]);
        let parameters = wanted.then_some((&mut dw[..], &mut db[..]));
        NormGradient { x: &values, dy: &dy, norm }.run(crew, dx.as_deref_mut(), parameters);
        let dx = dx.map(|dx| returned(x, dx)).transpose()?.flatten();
        let dw = if w.track_op() { returned(w, dw)? } else { None };
        let db = if b.track_op() { returned(b, db)? } else { None };
        Ok((dx, dw, db))
    }
}
