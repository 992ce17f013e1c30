# Variances with a known prior and what limma makes of them: Rscript limma_moderation.R limma_moderation.csv
suppressPackageStartupMessages(library(limma))
set.seed(20261122)
n <- 2000
cases <- list(c(df = 6, df0 = 4.6, s0 = 0.3), c(df = 10, df0 = 12, s0 = 2), c(df = 4, df0 = 3, s0 = 0.01))
parts <- lapply(seq_along(cases), function(k) {
  case <- cases[[k]]
  true <- case[["s0"]] * case[["df0"]] / rchisq(n, case[["df0"]])
  variance <- true * rchisq(n, case[["df"]]) / case[["df"]]
  fit <- fitFDist(variance, df1 = case[["df"]])
  squeezed <- squeezeVar(variance, df = case[["df"]])
  data.frame(
    case = k, df = case[["df"]], true_df0 = case[["df0"]], true_s0 = case[["s0"]], variance = variance,
    limma_df0 = fit$df2, limma_s0 = fit$scale, limma_squeezed = squeezed$var.post
  )
})
table <- do.call(rbind, parts)
numbers <- sapply(table, is.double)
table[numbers] <- lapply(table[numbers], signif, digits = 10)
write.csv(table, commandArgs(trailingOnly = TRUE)[1], row.names = FALSE, quote = FALSE)
cat("limma", as.character(packageVersion("limma")), "on", R.version.string, "\n")
