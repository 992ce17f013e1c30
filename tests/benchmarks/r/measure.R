# Time and peak memory of an expression: prints "wall cpu peak_mb". Memory is NA except on Linux.

status_mb <- function(field) {
  lines <- tryCatch(readLines("/proc/self/status"), error = function(e) character(), warning = function(w) character())
  value <- grep(paste0("^", field), lines, value = TRUE)
  if (length(value)) as.numeric(gsub("[^0-9]", "", value)) / 1024 else NA
}

measured <- function(expression) {
  invisible(gc())
  try(cat("5", file = "/proc/self/clear_refs"), silent = TRUE)
  before <- status_mb("VmRSS")
  seconds <- system.time(expression)
  cat(seconds[["elapsed"]], sum(seconds[c("user.self", "sys.self")]), status_mb("VmHWM") - before, "\n")
}

read_array <- function(folder, name) {
  path <- file.path(folder, name)
  n_columns <- length(scan(path, nlines = 1, quiet = TRUE))
  matrix(scan(path, quiet = TRUE), ncol = n_columns, byrow = TRUE)
}
