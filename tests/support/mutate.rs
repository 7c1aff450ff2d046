//! Inputs for fuzzing: entries of a corpus, cut, joined, repeated and strewn with words.

/// Makes one input after another; the same seed makes the same ones.
pub struct Mutator {
    state: u64,
    corpus: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
}

/// The longest input.
const LONGEST: usize = 16 << 10;
/// Numbers at which something ends.
const NUMBERS: &[&str] = &[
    "0",
    "-1",
    "1",
    "255",
    "256",
    "65536",
    "2147483648",
    "4294967296",
    "9007199254740993",
    "18446744073709551616",
    "1e999",
    "1e-7",
    "NaN",
    "0x7f",
    "1_000",
    "99999999999999999999d",
];
/// What nests.
const NESTS: &[&str] = &["[", "{", "(", "{\"a\":", "- ", "!", "${", "-", "\"", "{a: ", "a.", "a[", "a ? ", "not "];

impl Mutator {
    pub fn new(seed: u64, corpus: Vec<Vec<u8>>, dictionary: &str) -> Self {
        let words = dictionary.lines().filter_map(|line| line.strip_prefix('"')?.strip_suffix('"')).map(unescaped);
        let numbers = NUMBERS.iter().map(|number| number.as_bytes().to_vec());
        Self { state: seed, corpus, words: words.chain(numbers).collect() }
    }

    /// SplitMix64.
    fn draw(&mut self, below: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((x ^ (x >> 31)) % below.max(1) as u64).unwrap_or_default()
    }

    fn entry(&mut self) -> Vec<u8> {
        let at = self.draw(self.corpus.len());
        self.corpus.get(at).cloned().unwrap_or_default()
    }

    /// Two places within `bytes`, in order, mostly near each other.
    fn range(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let start = self.draw(bytes.len() + 1);
        let most = if self.draw(4) == 0 { bytes.len() - start } else { 24.min(bytes.len() - start) };
        start..start + self.draw(most + 1)
    }

    /// The start of a line, or the place after one.
    fn lines(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let breaks: Vec<usize> = std::iter::once(0)
            .chain(bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1))
            .collect();
        let (first, more) = (self.draw(breaks.len()), 1 + self.draw(3));
        let end = breaks.get(first + more).copied().unwrap_or(bytes.len());
        breaks[first]..end
    }

    pub fn next(&mut self) -> Vec<u8> {
        let mut bytes = self.entry();
        for _ in 0..=self.draw(5) {
            self.change(&mut bytes);
        }
        bytes.truncate(LONGEST);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.draw(bytes.len() + 1);
        match self.draw(13) {
            0 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << self.draw(8);
                }
            }
            1 => bytes.insert(at, u8::try_from(self.draw(256)).unwrap_or_default()),
            2 => {
                let range = self.range(bytes);
                bytes.drain(range);
            }
            3 => {
                let range = self.range(bytes);
                let copy = bytes[range].to_vec();
                bytes.splice(at..at, copy);
            }
            4 | 5 => {
                let word = self.draw_word();
                bytes.splice(at..at, self.words[word].clone());
            }
            6 => {
                let (range, word) = (self.range(bytes), self.draw_word());
                bytes.splice(range, self.words[word].clone());
            }
            7 => {
                let other = self.entry();
                let (range, piece) = (self.range(bytes), self.range(&other));
                bytes.splice(range, other[piece].iter().copied());
            }
            8 => {
                let other = self.entry();
                let (to, from) = (self.lines(bytes), self.lines(&other));
                bytes.splice(to.start..to.start, other[from].iter().copied());
            }
            9 => {
                let range = self.lines(bytes);
                bytes.drain(range);
            }
            10 => {
                let nest = NESTS[self.draw(NESTS.len())];
                let depth = 1 << self.draw(13);
                bytes.splice(at..at, nest.repeat(depth).into_bytes());
            }
            11 => {
                // A number becomes another one.
                let digits = |byte: &u8| byte.is_ascii_digit();
                if let Some(start) = bytes.iter().skip(at).position(digits).map(|more| at + more) {
                    let end =
                        bytes[start..].iter().position(|byte| !digits(byte)).map_or(bytes.len(), |more| start + more);
                    let number = NUMBERS[self.draw(NUMBERS.len())];
                    bytes.splice(start..end, number.bytes());
                }
            }
            _ => {
                let odd = ["\u{202e}", "\u{0}", "é", "\u{1f600}", "\u{2028}", "\r\n", "\t", "\u{feff}", "\\u0000"];
                bytes.splice(at..at, odd[self.draw(odd.len())].bytes());
            }
        }
    }

    fn draw_word(&mut self) -> usize {
        self.draw(self.words.len())
    }
}

/// A word of libFuzzer's dictionary: `\"`, `\\`, `\xAB`.
fn unescaped(word: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = word.bytes();
    while let Some(byte) = rest.next() {
        match (byte, byte == b'\\') {
            (_, true) => match rest.next() {
                Some(b'x') => {
                    let hex: String = rest.by_ref().take(2).map(char::from).collect();
                    bytes.push(u8::from_str_radix(&hex, 16).expect("two digits"));
                }
                Some(other) => bytes.push(other),
                None => {}
            },
            _ => bytes.push(byte),
        }
    }
    bytes
}
