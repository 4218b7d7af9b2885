//! How much memory one instance may have, all its memories and tables together: a component can be made
//! of a hundred modules, each with a memory of its own.

use wasmtime::ResourceLimiter;

/// Instances, memories and tables of one component; interpreters have dozens (CPython: 38).
const MOST_PARTS: usize = 128;

/// Elements of all tables.
const MOST_TABLE_ELEMENTS: usize = 200_000;

/// What an instance may still take. What a growth takes is never given back: WebAssembly cannot.
#[derive(Debug)]
pub(crate) struct Limiter {
    memory_left: usize,
    elements_left: usize,
}

/// An instance wanted more than it may have, and is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Exceeded {
    #[error("it wanted more memory than it may have")]
    Memory,
    #[error("it wanted tables of more than {MOST_TABLE_ELEMENTS} elements")]
    Tables,
}

impl Limiter {
    pub(crate) fn new(memory_bytes: usize) -> Self {
        Self { memory_left: memory_bytes, elements_left: MOST_TABLE_ELEMENTS }
    }
}

/// True, and less is left; or false.
fn take(left: &mut usize, current: usize, desired: usize) -> bool {
    match left.checked_sub(desired.saturating_sub(current)) {
        Some(less) => {
            *left = less;
            true
        }
        None => false,
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // Beyond its own maximum a growth fails, as the guest has to expect.
        if maximum.is_some_and(|most| desired > most) {
            return Ok(false);
        }
        match take(&mut self.memory_left, current, desired) {
            true => Ok(true),
            false => Err(Exceeded::Memory.into()),
        }
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|most| desired > most) {
            return Ok(false);
        }
        match take(&mut self.elements_left, current, desired) {
            true => Ok(true),
            false => Err(Exceeded::Tables.into()),
        }
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(error.context("the machine has no memory for it"))
    }

    fn instances(&self) -> usize {
        MOST_PARTS
    }

    fn tables(&self) -> usize {
        MOST_PARTS
    }

    fn memories(&self) -> usize {
        MOST_PARTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_for_all_memories_together() {
        let mut limiter = Limiter::new(100);
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(limiter.memory_growing(60, 80, None).unwrap());
        assert!(limiter.memory_growing(0, 20, None).unwrap());
        let error = limiter.memory_growing(0, 1, None).unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&Exceeded::Memory));
        assert!(!limiter.memory_growing(20, 30, Some(25)).unwrap());
    }

    #[test]
    fn the_bound_is_for_all_tables_together() {
        let mut limiter = Limiter::new(0);
        assert!(limiter.table_growing(0, MOST_TABLE_ELEMENTS, None).unwrap());
        assert!(!limiter.table_growing(0, 2, Some(1)).unwrap());
        let error = limiter.table_growing(0, 1, None).unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&Exceeded::Tables));
    }
}
