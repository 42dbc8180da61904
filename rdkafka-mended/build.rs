//! Compiles the files of librdkafka that have a mend, from the sources that rdkafka-sys was built from, and links them in
//! place of the archive's own: a linker takes of an archive only the members whose symbols it does not know yet.
//!
//! A mend is a text that stands once in a file, and what is to stand there instead. Where a new version of librdkafka has
//! changed the text, the build stops and says so: then look whether the mend is still needed.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// A piece of a file of librdkafka's `src` folder that is compiled differently.
struct Mend {
    file: &'static str,
    /// Stands in the file once.
    text: &'static str,
    instead: &'static str,
}

/// A broker that has lost its leadership tells in its answer to a fetch who leads now; -1 stands for nobody, as while a
/// broker that was gone comes back. librdkafka counts such a partition among those with a new leader, leaves it out when
/// it lists them, and walks the list to the number it counted: partition ids that nobody wrote, with which it reads beyond
/// its metadata. The relay's consumers of the storage topics died of it (SIGSEGV in `rd_kafka_metadata_update_op`), once in
/// some thousand times that Kafka came back. So what was listed is what is counted.
/// <https://github.com/confluentinc/librdkafka/issues/5280>, open as of 2.15.0.
const LEADER_GONE: Mend = Mend {
    file: "rdkafka_fetcher.c",
    text: "                        }\n                        changed_topic++;\n",
    instead: "                        }\n\
              \x20                       md->topics[changed_topic].partition_cnt = changed_partition;\n\
              \x20                       changed_topic++;\n",
};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    let librdkafka = folder("DEP_RDKAFKA_ROOT")?;
    let out = folder("OUT_DIR")?;
    let mended = out.join(LEADER_GONE.file);
    fs::write(&mended, apply(&LEADER_GONE, &librdkafka.join("src"))?)?;
    cc::Build::new()
        .file(mended)
        .include(librdkafka.join("src"))
        // As librdkafka itself is compiled, whatever the profile.
        .opt_level(2)
        .flags(flags(&librdkafka.join("Makefile.config"))?)
        .warnings(false)
        .cargo_metadata(false)
        .try_compile("rdkafka_mended")?;
    println!("cargo:rustc-link-search=native={}", out.display());
    // Whole: else the linker, which reads it before librdkafka, would find no use for it yet.
    println!("cargo:rustc-link-lib=static:+whole-archive=rdkafka_mended");
    Ok(())
}

/// A folder that cargo names to build scripts.
fn folder(variable: &str) -> Result<PathBuf, Box<dyn Error>> {
    let named = env::var_os(variable).map(PathBuf::from);
    named.ok_or_else(|| format!("cargo has not set {variable}").into())
}

fn apply(mend: &Mend, sources: &Path) -> Result<String, Box<dyn Error>> {
    let source = fs::read_to_string(sources.join(mend.file))?;
    let found = source.matches(mend.text).count();
    if found != 1 {
        let said = format!(
            "the text to be mended stands {found} times in librdkafka's {}, not once: this version has changed it. Is the \
             mend in build.rs still needed?",
            mend.file
        );
        return Err(said.into());
    }
    Ok(source.replace(mend.text, mend.instead))
}

/// What librdkafka's configure script found: where the headers of its own dependencies are, and options of the compiler.
fn flags(configured: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let text = fs::read_to_string(configured)?;
    let mut flags = Vec::new();
    for line in text.lines() {
        let Some((name, value)) = line.split_once("+=") else { continue };
        if matches!(name, "CPPFLAGS" | "CFLAGS") {
            flags.extend(value.split_whitespace().map(str::to_owned));
        }
    }
    if flags.is_empty() {
        return Err(format!("no compiler options in {}", configured.display()).into());
    }
    Ok(flags)
}
