//! A page for each code that a finding may have: what it means, why it matters, an example of the mistake and how it is
//! mended. The pages are in `docs/codes`; a test sees to it that none is missing and that the examples tell the truth.

const PAGES: [&str; 6] = [
    include_str!("../../docs/codes/form.md"),
    include_str!("../../docs/codes/steps.md"),
    include_str!("../../docs/codes/order.md"),
    include_str!("../../docs/codes/times.md"),
    include_str!("../../docs/codes/expressions.md"),
    include_str!("../../docs/codes/schemas.md"),
];

/// What a code means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodePage {
    /// The code.
    pub code: &'static str,
    /// What it means, in a line.
    pub title: &'static str,
    /// The page, in Markdown, without its heading.
    pub text: &'static str,
    /// A definition, or several between lines of `---`, that is told exactly this. A line that ends with
    /// `# N = a to b` stands for as many lines.
    pub faulty: &'static str,
    /// The same without the mistake.
    pub mended: &'static str,
}

/// The page of a code.
pub fn explain(code: &str) -> Option<CodePage> {
    codes().into_iter().find(|page| page.code == code)
}

/// All pages, by code.
pub fn codes() -> Vec<CodePage> {
    let mut pages: Vec<CodePage> = PAGES.into_iter().flat_map(sections).collect();
    pages.sort_by_key(|page| page.code);
    pages
}

fn sections(file: &'static str) -> impl Iterator<Item = CodePage> {
    file.split("\n## `").skip(1).filter_map(|section| {
        let (heading, text) = section.split_once('\n')?;
        let (code, title) = heading.split_once("`: ")?;
        let example = |kind: &str| {
            let (_, rest) = text.split_once(&format!("```yaml {kind}\n"))?;
            rest.split_once("\n```").map(|(example, _)| example)
        };
        Some(CodePage {
            code,
            title,
            text: text.trim(),
            faulty: example("faulty").unwrap_or_default(),
            mended: example("mended").unwrap_or_default(),
        })
    })
}
