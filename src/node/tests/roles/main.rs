//! The roles as a user meets them: by HTTP, over a local store, in one process or as several workers.

#[cfg(test)]
mod access;
#[cfg(test)]
mod backups;
#[cfg(test)]
mod bodies;
#[cfg(test)]
mod browser;
#[cfg(test)]
mod crew;
#[cfg(test)]
mod embedded;
#[cfg(test)]
mod eventual;
#[cfg(test)]
mod full;
#[cfg(test)]
mod governed;
#[cfg(test)]
mod handover;
mod history;
#[cfg(test)]
mod library;
#[cfg(test)]
mod meta;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod priority;
#[cfg(test)]
mod reset;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod rollback;
#[cfg(test)]
mod server;
#[cfg(test)]
mod support;
#[cfg(test)]
mod undeclared;
