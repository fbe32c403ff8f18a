//! `hebb completion`: scripts for shells.

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::cli::{Arguments, Outcome};
use crate::output::print;

#[derive(Args)]
#[command(after_help = "Examples:
  source <(hebb completion bash)
  hebb completion zsh > \"${fpath[1]}/_hebb\"
  hebb completion fish > ~/.config/fish/completions/hebb.fish")]
pub struct Options {
    /// The shell
    #[arg(value_enum)]
    shell: ShellName,
}

/// A shell that the script is for.
#[derive(Clone, Copy, ValueEnum)]
enum ShellName {
    /// GNU bash
    Bash,
    /// Z shell
    Zsh,
    /// fish
    Fish,
}

pub fn run(options: Options) -> Outcome {
    let shell = match options.shell {
        ShellName::Bash => Shell::Bash,
        ShellName::Zsh => Shell::Zsh,
        ShellName::Fish => Shell::Fish,
    };
    // Into memory first: the generator panics where its output is closed, as by `head`.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "hebb", &mut script);
    print(script)
}
