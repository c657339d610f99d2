//! Pictures as files.

use std::io::{self, Write};

use mimus_hw::vga::Frame;

/// A format of image files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    /// Portable Network Graphics.
    Png,
    /// Portable pixmap, binary (P6).
    Ppm,
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
