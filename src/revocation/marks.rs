//! What a token can be revoked by, as a live session remembers it.

/// The claims and the route that revocations name, in one allocation beside the struct.
#[derive(Clone, PartialEq, Eq)]
pub struct Marks {
    /// `jti`, `sub`, `iss` and the name of the route, one behind the other.
    text: Box<str>,
    /// Where the first three end in it.
    ends: [u16; 3],
    /// Seconds since 1970. 0 where the token does not say: then nothing shows that it is newer
    /// than a revocation.
    issued: u64,
    /// The version of the store when the token was admitted.
    version: u64,
}

impl Marks {
    /// Of a token that is admitted on the route with this name, and asked for at this
    /// [`Store::version`](super::Store::version). An absent claim is the same as an empty one:
    /// neither can be named.
    pub fn new(
        route: &str,
        jti: Option<&str>,
        sub: Option<&str>,
        iss: Option<&str>,
        issued: Option<u64>,
        version: u64,
    ) -> Self {
        // A token is shorter than 8 KiB, so what it says ends below 2¹⁶.
        let fits = |text: Option<&str>| text.filter(|t| t.len() < 16 << 10).map(str::to_owned);
        let (jti, sub, iss) = (fits(jti), fits(sub), fits(iss));
        let mut text = jti.unwrap_or_default();
        let jti_end = text.len();
        text.push_str(&sub.unwrap_or_default());
        let sub_end = text.len();
        text.push_str(&iss.unwrap_or_default());
        let iss_end = text.len();
        text.push_str(route);
        let end = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
        Self {
            text: text.into(),
            ends: [jti_end, sub_end, iss_end].map(end),
            issued: issued.unwrap_or(0),
            version,
        }
    }

    /// The claim `jti`.
    pub fn jti(&self) -> Option<&str> {
        let [jti, ..] = self.ends;
        self.part(0, jti)
    }

    /// The claim `sub`.
    pub fn sub(&self) -> Option<&str> {
        let [jti, sub, _] = self.ends;
        self.part(jti, sub)
    }

    /// The claim `iss`.
    pub fn iss(&self) -> Option<&str> {
        let [_, sub, iss] = self.ends;
        self.part(sub, iss)
    }

    /// The claim `iat`, and 0 where there is none.
    pub const fn issued(&self) -> u64 {
        self.issued
    }

    /// What the store was when the token was admitted.
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// The name of the route.
    pub fn route(&self) -> &str {
        let [_, _, iss] = self.ends;
        self.text.get(usize::from(iss)..).unwrap_or_default()
    }

    fn part(&self, from: u16, to: u16) -> Option<&str> {
        let part = self.text.get(usize::from(from)..usize::from(to));
        part.filter(|text| !text.is_empty())
    }
}

impl std::fmt::Debug for Marks {
    /// Without the claims.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Marks")
            .field("route", &self.route())
            .finish_non_exhaustive()
    }
}
