//! Which instruction set an operation runs in: the best that the processor has. Tests choose others as well, since a machine that has
//! the widest would never run what machines without it get.

/// Runs an operation in the best instruction set.
#[cfg(not(test))]
#[inline]
pub(crate) fn run<Op: rten_simd::SimdOp>(op: Op) -> Op::Output {
    op.dispatch()
}

#[cfg(test)]
pub(crate) use testing::{everywhere, run};

#[cfg(test)]
mod testing {
    use std::cell::Cell;

    use rten_simd::SimdOp;
    use rten_simd::isa::GenericIsa;

    /// An instruction set.
    #[derive(Debug, Clone, Copy, PartialEq)]
    pub(crate) enum Set {
        Best,
        #[cfg(target_arch = "x86_64")]
        Avx2,
        Portable,
    }

    thread_local! {
        static CHOSEN: Cell<Set> = const { Cell::new(Set::Best) };
    }

    /// Calls `work`, which must not use other threads, once for each instruction set that can be had here.
    pub(crate) fn everywhere(work: impl Fn()) {
        let sets = [
            Set::Best,
            #[cfg(target_arch = "x86_64")]
            Set::Avx2,
            Set::Portable,
        ];
        for set in sets {
            CHOSEN.set(set);
            work();
            CHOSEN.set(Set::Best);
        }
    }

    /// Runs an operation in the chosen instruction set.
    pub(crate) fn run<Op: SimdOp>(op: Op) -> Op::Output {
        match CHOSEN.get() {
            Set::Best => op.dispatch(),
            Set::Portable => op.eval(GenericIsa::new()),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => match rten_simd::isa::Avx2Isa::new() {
                // SAFETY: the features are there, otherwise there were no such value.
                Some(isa) => unsafe { avx2(isa, op) },
                None => op.dispatch(),
            },
        }
    }

    /// # Safety
    /// The processor has these features.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx,avx2,fma,f16c")]
    unsafe fn avx2<Op: SimdOp>(isa: impl rten_simd::Isa, op: Op) -> Op::Output {
        op.eval(isa)
    }
}
