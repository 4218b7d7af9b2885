//! `export!`: from a [`Hook`](crate::Hook) to the component's exports.

/// Exports a [`Hook`](crate::Hook) as the component's lifecycle. Once per crate, in a `cdylib`.
///
/// The value is made by `Default` when the host first asks for something that needs one, and lives
/// as long as the instance. Natively nothing is exported; that the type is a hook is checked.
///
/// ```
/// # use stillpoint_hook::*;
/// #[derive(Default)]
/// struct Nothing;
///
/// impl Hook for Nothing {
///     fn describe() -> Description {
///         Description {
///             name: "nothing".into(),
///             version: env!("CARGO_PKG_VERSION").into(),
///             summary: "Quiesces nothing".into(),
///             settings_schema: "{}".into(),
///             needs: vec![],
///             freeze_budget_ms: 1000,
///         }
///     }
///     fn pre_freeze(&mut self) -> Result<Frozen, HookError> {
///         Ok(Frozen { consistency: Consistency::None, metadata: vec![] })
///     }
///     fn confirm(&mut self) -> Result<(), HookError> {
///         Ok(())
///     }
///     fn post_thaw(&mut self, _outcome: Outcome) -> Result<Vec<MetadataEntry>, HookError> {
///         Ok(vec![])
///     }
/// }
///
/// stillpoint_hook::export!(Nothing);
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! export {
    ($hook:ty) => {
        const _: () = {
            const fn is_a_hook<H: $crate::Hook>() {}
            is_a_hook::<$hook>();
        };

        #[cfg(target_arch = "wasm32")]
        mod __stillpoint_export {
            use super::*;

            ::std::thread_local! {
                static HOOK: ::std::cell::RefCell<::std::option::Option<$hook>> =
                    const { ::std::cell::RefCell::new(::std::option::Option::None) };
            }

            /// The hook of this instance, made when it is first needed.
            fn with<T>(call: impl FnOnce(&mut $hook) -> T) -> T {
                HOOK.with(|hook| {
                    call(hook.borrow_mut().get_or_insert_with(::std::default::Default::default))
                })
            }

            struct Component;

            impl $crate::bindings::exports::stillpoint::hook::lifecycle::Guest for Component {
                fn describe() -> $crate::Description {
                    <$hook as $crate::Hook>::describe()
                }
                fn validate(settings: ::std::string::String) -> Result<(), $crate::HookError> {
                    <$hook as $crate::Hook>::validate(&settings)
                }
                fn prepare(
                    settings: ::std::string::String,
                ) -> Result<$crate::Plan, $crate::HookError> {
                    with(|hook| $crate::Hook::prepare(hook, &settings))
                }
                fn pre_freeze() -> Result<$crate::Frozen, $crate::HookError> {
                    with($crate::Hook::pre_freeze)
                }
                fn confirm() -> Result<(), $crate::HookError> {
                    with($crate::Hook::confirm)
                }
                fn post_thaw(
                    outcome: $crate::Outcome,
                ) -> Result<::std::vec::Vec<$crate::MetadataEntry>, $crate::HookError> {
                    with(|hook| $crate::Hook::post_thaw(hook, outcome))
                }
                fn finish() -> Result<(), $crate::HookError> {
                    with($crate::Hook::finish)
                }
            }

            $crate::bindings::__export_hook_world!(Component with_types_in $crate::bindings);
        }
    };
}
