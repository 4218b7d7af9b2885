//! The declared order of hooks.

use std::collections::BTreeMap;

use super::hooks::PlannedHook;

/// The wave of each hook: one after the last of those it names.
pub(super) fn waves(hooks: &[PlannedHook]) -> Result<Vec<usize>, String> {
    let index: BTreeMap<&str, usize> =
        hooks.iter().enumerate().map(|(i, planned)| (planned.hook.name(), i)).collect();
    let mut waves: Vec<Option<usize>> = vec![None; hooks.len()];
    loop {
        let mut progress = false;
        for (i, planned) in
            hooks.iter().enumerate().filter(|(i, _)| waves[*i].is_none()).collect::<Vec<_>>()
        {
            let mut wave = Some(0);
            for name in &planned.after {
                let Some(&before) = index.get(name.as_str()) else {
                    return Err(format!(
                        "hook {} is to run after {name}, but no hook of that name is configured",
                        planned.hook.name()
                    ));
                };
                wave = match (wave, waves[before]) {
                    (Some(wave), Some(other)) => Some(wave.max(other + 1)),
                    _ => None,
                };
            }
            if wave.is_some() {
                waves[i] = wave;
                progress = true;
            }
        }
        if waves.iter().all(Option::is_some) {
            return Ok(waves.into_iter().flatten().collect());
        }
        if !progress {
            let circle: Vec<_> = hooks
                .iter()
                .zip(&waves)
                .filter(|(_, wave)| wave.is_none())
                .map(|(planned, _)| planned.hook.name())
                .collect();
            return Err(format!("hooks wait for each other: {}", circle.join(", ")));
        }
    }
}
