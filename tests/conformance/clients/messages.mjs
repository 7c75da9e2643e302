// The thousand messages that every client sends: the same ones in each language (messages.py).
export const COUNT = 1000;
// On both sides of each form of length, of a TLS record and of what TCP carries at once.
const SIZES = [
  0, 1, 2, 125, 126, 127, 1000, 1459, 4096, 16383, 16384, 16385, 65535, 65536, 100_000, 7,
];
const LETTERS = 'aé漢🦀';
const LENGTH = new TextEncoder().encode(LETTERS).length;

// Of about so many bytes as its size says, with characters of one to four bytes.
export function text(n) {
  const size = SIZES[n % SIZES.length];
  return LETTERS.repeat(Math.floor(size / LENGTH)) + String(n % 10).repeat(size % LENGTH);
}

export function bytes(n) {
  const made = new Uint8Array(256 * Math.floor(SIZES[n % SIZES.length] / 256));
  for (let k = 0; k < made.length; k++) made[k] = (n * 31 + k * 7) & 0xff;
  return made;
}

// Text and bytes in turn.
export function message(n) {
  return Math.floor(n / SIZES.length) % 2 === 0 ? text(n) : bytes(n);
}

export function isSame(sent, heard) {
  if (typeof sent === 'string' || typeof heard === 'string') return sent === heard;
  const view = new Uint8Array(heard.buffer ?? heard, heard.byteOffset ?? 0, heard.byteLength);
  return sent.length === view.length && sent.every((byte, n) => byte === view[n]);
}
