//! Base 36: bytes as a number written with `0-9a-z`, in a fixed width, as join tokens have it.

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// `bytes`, read as one big-endian number, in exactly `width` digits.
///
/// `width` must be large enough: 25 for 16 bytes, 50 for 32 bytes; higher digits would be lost.
pub fn encode(bytes: &[u8], width: usize) -> String {
    let mut number = bytes.to_vec();
    let mut digits = vec![b'0'; width];
    for slot in digits.iter_mut().rev() {
        *slot = DIGITS[usize::from(divide_by_36(&mut number))];
    }
    digits.into_iter().map(char::from).collect()
}

/// The `N` big-endian bytes that `text` stands for; `None` for another alphabet or a number that is too
/// large.
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut number = [0u8; N];
    for c in text.bytes() {
        let digit = DIGITS.iter().position(|d| *d == c)?;
        times_36_plus(&mut number, u16::try_from(digit).ok()?)?;
    }
    Some(number)
}

/// Divides the big-endian `number` in place and returns the remainder.
fn divide_by_36(number: &mut [u8]) -> u8 {
    let mut rest = 0u16;
    for byte in number.iter_mut() {
        let part = (rest << 8) | u16::from(*byte);
        *byte = u8::try_from(part / 36).expect("the rest is below 36, so the quotient is below 256");
        rest = part % 36;
    }
    u8::try_from(rest).expect("a remainder of 36")
}

fn times_36_plus(number: &mut [u8], digit: u16) -> Option<()> {
    let mut carry = digit;
    for byte in number.iter_mut().rev() {
        let [high, low] = (u16::from(*byte) * 36 + carry).to_be_bytes();
        *byte = low;
        carry = u16::from(high);
    }
    (carry == 0).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        assert_eq!(encode(&[0; 16], 25), "0".repeat(25));
        assert_eq!(encode(&[35], 2), "0z");
        assert_eq!(encode(&[1, 0], 3), "074");
        assert_eq!(encode(&[0xff; 16], 25), "f5lxx1zz5pnorynqglhzmsp33");
    }

    #[test]
    fn refuses_what_does_not_fit() {
        assert_eq!(decode::<16>("f5lxx1zz5pnorynqglhzmsp33"), Some([0xff; 16]));
        assert_eq!(decode::<16>("f5lxx1zz5pnorynqglhzmsp34"), None);
        assert_eq!(decode::<16>(&"z".repeat(25)), None);
        assert_eq!(decode::<16>("A"), None);
        assert_eq!(decode::<16>("é"), None);
    }

    proptest! {
        #[test]
        fn round_trip(bytes: [u8; 32]) {
            let text = encode(&bytes, 50);
            prop_assert_eq!(text.len(), 50);
            prop_assert_eq!(decode::<32>(&text), Some(bytes));
        }
    }
}
