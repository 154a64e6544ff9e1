//! Unpacked kernels, kept for the next domain of the same kernel: unpacking costs more than all else of creating one.
//!
//! A kernel is found again by its file's content, compared byte for byte. A hash would be shorter, but one that an
//! attacker cannot collide takes longer than the comparison, and a tenant's kernel must never become another one's.

use alloc::borrow::Cow;
use alloc::sync::Arc;
use alloc::vec::Vec;

use domain_image::{Format, ImageError, Payload};

/// The largest unpacked kernel (Xen has no such limit, dom0's memory is one).
const KERNEL_LIMIT: u64 = 1 << 30;

/// A kernel's ELF.
#[derive(Debug, Clone)]
pub enum Image {
    /// It is the file.
    File(Cow<'static, [u8]>),
    /// It was packed.
    Unpacked(Arc<Vec<u8>>),
}

impl core::ops::Deref for Image {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::File(file) => file,
            Self::Unpacked(image) => image,
        }
    }
}

#[derive(Debug)]
struct Kept {
    file: Cow<'static, [u8]>,
    image: Arc<Vec<u8>>,
}

impl Kept {
    /// Bytes of memory that it takes: a file that is there anyway takes none.
    fn bytes(&self) -> usize {
        let file = if let Cow::Owned(file) = &self.file { file.len() } else { 0 };
        file.saturating_add(self.image.len())
    }

    /// Bytes in the same place are the same: nobody can change them as long as they are borrowed here.
    fn is(&self, file: &[u8]) -> bool {
        core::ptr::eq(&*self.file, file) || *self.file == *file
    }
}

/// The cache: it holds at most so many bytes. What was used last stays longest.
#[derive(Debug, Default)]
pub struct Images {
    /// Used last comes last.
    kept: Vec<Kept>,
    limit: usize,
}

impl Images {
    /// An empty cache that will hold at most `limit` bytes.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { kept: Vec::new(), limit }
    }

    /// How many images are kept, and how many bytes they take.
    #[must_use]
    pub fn usage(&self) -> (usize, usize) {
        (self.kept.len(), self.kept.iter().map(Kept::bytes).sum())
    }

    /// The kernel in a file.
    ///
    /// # Errors
    /// What is wrong with the file, or that there is no memory for what is in it.
    pub fn unpack(&mut self, file: Cow<'static, [u8]>) -> Result<Image, ImageError> {
        if let Some(at) = self.kept.iter().position(|kept| kept.is(&file)) {
            let kept = self.kept.remove(at);
            let image = Image::Unpacked(kept.image.clone());
            self.kept.push(kept);
            return Ok(image);
        }
        let payload = Payload::find(&file)?;
        if payload.format == Format::Elf && payload.data.len() == file.len() {
            return Ok(Image::File(file));
        }
        // Room first: dom0's memory need not hold an image more than the limit allows.
        let expected = payload.unpacked_len.and_then(|len| usize::try_from(len).ok()).unwrap_or(usize::MAX);
        self.make_room(expected);
        let image = match payload.unpack(KERNEL_LIMIT) {
            Err(ImageError::OutOfMemory(_)) if !self.kept.is_empty() => {
                self.kept.clear();
                payload.unpack(KERNEL_LIMIT)?
            }
            other => other?,
        };
        let image = Arc::new(image.into_owned());
        let kept = Kept { file, image: image.clone() };
        if kept.bytes() <= self.limit {
            self.make_room(kept.bytes());
            self.kept.push(kept);
        }
        Ok(Image::Unpacked(image))
    }

    /// Forgets those that were not used for longest until `bytes` more fit in.
    fn make_room(&mut self, bytes: usize) {
        while !self.kept.is_empty() && self.usage().1.saturating_add(bytes) > self.limit {
            self.kept.remove(0);
        }
    }
}
