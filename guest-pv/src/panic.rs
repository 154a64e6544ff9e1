//! The last words of a guest: the panic is printed and the domain reports itself as crashed.

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    crate::println!("guest {info}");
    crate::power::crash()
}
