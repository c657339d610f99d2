//! Pictures as files.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use mimus_hw::vga::Frame;

use super::Console;

/// A format of image files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    /// Portable Network Graphics.
    Png,
    /// Portable pixmap, binary (P6).
    Ppm,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The machine has no display adapter.
    #[error("the machine has no screen")]
    NoScreen,
    /// The file cannot be written.
    #[error("cannot write '{0}': {1}")]
    File(std::path::PathBuf, #[source] io::Error),
}

impl ImageFormat {
    /// The one with this name, as `screendump -f` takes it.
    pub fn named(name: &str) -> Option<ImageFormat> {
        match name {
            "png" => Some(ImageFormat::Png),
            "ppm" => Some(ImageFormat::Ppm),
            _ => None,
        }
    }
}

/// Writes `frame` to `out`.
///
/// # Errors
///
/// Those of `out`.
pub fn write_image(frame: &Frame, format: ImageFormat, mut out: impl Write) -> io::Result<()> {
    let bytes: Vec<u8> = frame.pixels.iter().flat_map(|pixel| pixel.to_be_bytes().into_iter().skip(1)).collect();
    match format {
        ImageFormat::Ppm => {
            write!(out, "P6\n{} {}\n255\n", frame.width, frame.height)?;
            out.write_all(&bytes)?;
        }
        ImageFormat::Png => {
            let mut encoder = png::Encoder::new(&mut out, frame.width, frame.height);
            encoder.set_color(png::ColorType::Rgb);
            encoder.set_depth(png::BitDepth::Eight);
            let mut writer = encoder.write_header().map_err(io::Error::from)?;
            writer.write_image_data(&bytes).map_err(io::Error::from)?;
            writer.finish().map_err(io::Error::from)?;
        }
    }
    out.flush()
}

impl Console {
    /// Writes what is on the screen to the file at `path`, which is made or replaced.
    ///
    /// # Errors
    ///
    /// A machine without a screen; a file that cannot be written.
    pub fn screendump(&self, path: &Path, format: ImageFormat) -> Result<(), ImageError> {
        let screen = self.picture().ok_or(ImageError::NoScreen)?;
        let write = || write_image(screen.frame(), format, BufWriter::new(File::create(path)?));
        write().map_err(|error| ImageError::File(path.to_owned(), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame { width: 3, height: 2, pixels: vec![0xff0000, 0x00ff00, 0x0000ff, 0, 0x123456, 0xffffff] }
    }

    const PIXELS: [u8; 18] = [255, 0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 0x12, 0x34, 0x56, 255, 255, 255];

    #[test]
    fn a_pixmap() {
        let mut out = Vec::new();
        write_image(&frame(), ImageFormat::Ppm, &mut out).expect("a vector takes all");
        assert_eq!(out, [b"P6\n3 2\n255\n", &PIXELS[..]].concat());
    }

    #[test]
    fn png_says_the_same() {
        let mut out = Vec::new();
        write_image(&frame(), ImageFormat::Png, &mut out).expect("a vector takes all");
        let mut reader = png::Decoder::new(io::Cursor::new(out)).read_info().expect("a PNG");
        let mut pixels = vec![0; 18];
        let info = reader.next_frame(&mut pixels).expect("with a picture");
        assert_eq!((info.width, info.height, info.color_type), (3, 2, png::ColorType::Rgb));
        assert_eq!(pixels, PIXELS);
    }
}
